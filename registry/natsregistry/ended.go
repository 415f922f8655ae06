package natsregistry

import "encoding/json"

// disconnectSubject tells the ends of the connections of every account.
const disconnectSubject = "$SYS.ACCOUNT.*.DISCONNECT"

// ending is the end of a connection.
type ending struct {
	holder holder
	// closed says that the other end closed it, so that this end's process has
	// gone or knows it. Otherwise it was the server, which the other end may
	// learn later.
	closed bool
}

// ended reads the system account's message about a connection's end.
func ended(message []byte) (ending, error) {
	var m struct {
		Server struct {
			ID string `json:"id"`
		} `json:"server"`
		Client struct {
			ID uint64 `json:"id"`
		} `json:"client"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(message, &m); err != nil {
		return ending{}, err
	}
	e := ending{holder: holder{m.Server.ID, m.Client.ID}}
	switch m.Reason { // a killed process is any of these, by what the server was at
	case "Client Closed", "Read Error", "Write Error":
		e.closed = true
	}
	return e, nil
}

// endedKept is how many ended connections are remembered: a lease and the end
// of its connection come on different ways, so the end may be known first.
const endedKept = 4096

// endings remembers the connections that ended last.
type endings struct {
	known map[holder]struct{}
	order []holder // oldest first
}

func (e *endings) has(h holder) bool {
	_, known := e.known[h]
	return known
}

func (e *endings) add(h holder) {
	if e.has(h) {
		return
	}
	if e.known == nil {
		e.known = map[holder]struct{}{}
	}
	if len(e.order) == endedKept {
		delete(e.known, e.order[0])
		e.order = e.order[1:]
	}
	e.known[h] = struct{}{}
	e.order = append(e.order, h)
}
