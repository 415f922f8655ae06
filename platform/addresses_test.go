package platform

import "testing"

func TestOnlyInstances(t *testing.T) {
	t.Parallel()
	for address, allowed := range map[string]bool{
		"127.0.0.1:3001": true, "10.1.2.3:80": true, "[::1]:80": true, "8.8.8.8:443": true,
		"169.254.169.254:80": false, "[fe80::1]:80": false, "0.0.0.0:80": false, "224.0.0.1:80": false,
		"[::ffff:169.254.169.254]:80": false, "garbage": false,
	} {
		if err := onlyInstances(t.Context(), "tcp", address, nil); (err == nil) != allowed {
			t.Errorf("%s: %v, allowed is %v", address, err, allowed)
		}
	}
}

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
