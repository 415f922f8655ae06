package memregistry_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	registrytest.Run(t, func(*testing.T) registrytest.Store {
		hub := memregistry.New()
		return registrytest.Store{
			Connect: func(*testing.T) registrytest.Connection {
				d := hub.Connect()
				return registrytest.Connection{Driver: d, Sever: d.Disconnect, Mend: d.Reconnect}
			},
			Wipe: func(*testing.T) { hub.Wipe() },
		}
	}, registrytest.InBubble())
}
