package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestClosest(t *testing.T) {
	t.Parallel()
	names := []string{"user-service", "pay", "mailer", "order-service", "pay-2"}
	for word, want := range map[string][]string{
		"user-servic": {"user-service"}, "usr-service": {"user-service"}, "maler": {"mailer"}, "pay": {"pay", "pay-2"},
		"service": {"user-service", "order-service"}, "zebra": nil, "": nil,
	} {
		if diff := cmp.Diff(want, closest(word, names)); diff != "" {
			t.Errorf("%q: %s", word, diff)
		}
	}
}

// It is a distance: none to itself, the same both ways, no shorter by a detour,
// and never more than to write the longer word anew.
func TestDistance(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[ab-é]{0,6}`)
		a, b, c := word.Draw(t, "a"), word.Draw(t, "b"), word.Draw(t, "c")
		ab := distance(a, b)
		switch {
		case (ab == 0) != (a == b), ab != distance(b, a), ab > distance(a, c)+distance(c, b), ab > max(len([]rune(a)), len([]rune(b))):
			t.Fatalf("distance(%q, %q) = %d", a, b, ab)
		}
	})
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	register(t, r.reg, "user-service", "u1")
	register(t, r.reg, "user-service", "u2")
	register(t, r.reg, "pay", "p1")
	for args, want := range map[string]string{
		"services list |":                "pay user-service",
		"services list pay |":            "",
		"services watch pay |":           "user-service",
		"services pick |":                "pay user-service",
		"services show |":                "pay user-service",
		"services show user-service |":   "u1 u2",
		"services drain user-service.|":  "pay.p1 user-service.u1 user-service.u2",
		"services drain pay.p1 |":        "user-service.u1 user-service.u2",
		"services undrain pay p1 |":      "",
		"services deregister pay |":      "p1",
		"services heartbeat |":           "pay user-service",
		"services list --status |":       "starting healthy degraded unhealthy draining",
		"services pick pay --strategy |": "",
	} {
		words := append([]string{"__complete"}, strings.Split(strings.TrimSuffix(args, "|"), " ")...)
		got := strings.Fields(r.run(words...).stdout)
		if len(got) == 0 || !strings.HasPrefix(got[len(got)-1], ":") {
			t.Fatalf("%s: %q", args, got)
		}
		got = got[:len(got)-1]
		if strings.Contains(args, "--strategy") {
			if !slices.Contains(got, "round-robin") {
				t.Errorf("%s %q", args, got)
			}
			continue
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s %q, want %q", args, got, want)
		}
	}
}

// Where nothing answers, or too late, there is nothing to complete, soon.
func TestCompletionDoesNotWait(t *testing.T) {
	t.Parallel()
	silent := newSilent(t)
	for _, url := range []string{"http://127.0.0.1:1", silent, "nonsense"} {
		began := time.Now()
		got := keelson(t, nil, "__complete", "services", "show", "--url", url, "")
		if strings.TrimSpace(got.stdout) != ":4" || time.Since(began) > 10*completeTimeout {
			t.Errorf("%s: %+v after %v", url, got, time.Since(began))
		}
	}
}
