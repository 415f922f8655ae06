// Package problem is the one error format Keelson speaks over HTTP: problem
// details (RFC 9457), sent as application/problem+json.
//
// A [Problem] is an error. A handler returns or writes it, and the client gets
// its status, its stable code and its text:
//
//	problem.Write(w, r, problem.New(http.StatusNotFound, problem.CodeNotFound, "No user 7."))
//
// Any other error may be given to [Write] too. [From] turns it into a problem
// with a neutral text: what an internal error says is for the log, never for the
// client.
//
// Clients branch on the status or on [Problem.Code], never on the texts. [Decode]
// reads a problem back from a response.
package problem
