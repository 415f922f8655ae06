package users_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/examples/shop/users"
)

func TestMain(m *testing.M) {
	users.SetCheckInterval(20 * time.Millisecond)
	goleak.VerifyTestMain(m)
}
