package gateway

import "time"

// SetPatience sets how long a write may wait for a client. Call it before the
// gateway serves.
func (g *Gateway) SetPatience(d time.Duration) { g.patience = d }
