package idempotencytest

import (
	"flag"
	"runtime"
	"strconv"
)

// RealTime is for the TestMain of a package that runs the suite in real time. There
// most tests wait for leases to end, so more of them run at once than there are
// processors; and the model is compared less often, since each step is a
// conversation with a server. The flags -parallel and -rapid.checks go before.
func RealTime() {
	for name, value := range map[string]string{"test.parallel": strconv.Itoa(max(8, runtime.GOMAXPROCS(0))), "rapid.checks": "25"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
}
