package postgrestest_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/internal/postgrestest"
)

// asVictim in the environment makes the test binary start a server, pause it if
// the value is "paused", and wait to be killed.
const asVictim = "POSTGRESTEST_VICTIM"

func TestMain(m *testing.M) {
	if as := os.Getenv(asVictim); as != "" {
		ctx := context.Background()
		s, err := postgrestest.Start(ctx)
		if err == nil && as == "paused" {
			err = s.Pause(ctx)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.PID(), s.Dir())
		select {}
	}
	goleak.VerifyTestMain(postgrestest.M{M: m})
}
