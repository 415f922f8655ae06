package platform

import "testing"

func TestElsewhere(t *testing.T) {
	t.Parallel()
	for engine, want := range map[string]bool{
		"": false, "nats://127.0.0.1:4222": false, "nats://localhost:4222": false, "tls://[::1]:4222": false,
		"nats://10.0.0.1:4222": true, "nats://127.0.0.1:4222, nats://nats-2:4222": true,
	} {
		if got := elsewhere(engine); got != want {
			t.Errorf("elsewhere(%q) = %v", engine, got)
		}
	}
}
