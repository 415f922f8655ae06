package postgrestest

// PID returns the id of the server's first process.
func (s *Server) PID() int { return s.process.pid }

// Dir returns the server's folder.
func (s *Server) Dir() string { return s.dir }

// Programs finds initdb and postgres in PATH or below the patterns.
var Programs = programs
