package join

import "time"

// What tests look into.
var (
	Run    = run
	Locate = locate
)

// WaitForEngine shortens the wait for an engine, for all tests.
func WaitForEngine(d time.Duration) { connectTimeout = d }
