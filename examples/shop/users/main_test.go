package users_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/internal/postgrestest"
)

func TestMain(m *testing.M) {
	users.SetCheck(50*time.Millisecond, time.Second)
	users.SetConnectWait(time.Minute) // the machine may be busy
	goleak.VerifyTestMain(postgrestest.M{M: m})
}
