package balance

// Abandon ends a call that Begin announced in place of [Endpoint.End], if the caller gave
// it up and that shall teach nothing: the call is in flight no more, but the endpoint has
// not answered, and if it was silent, it still is.
func (e *Endpoint) Abandon() { e.cell.load.Add(^uint64(oneCall - 1)) }
