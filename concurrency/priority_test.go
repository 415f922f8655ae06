package concurrency_test

import (
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/concurrency"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParsePriority(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]concurrency.Priority{
		"low": concurrency.Low, "normal": concurrency.Normal, "critical": concurrency.Critical, "CRITICAL": concurrency.Critical, "Low": concurrency.Low,
	} {
		if got, err := concurrency.ParsePriority(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "high", "low ", "critical,low", strings.Repeat("x", 1<<16)} {
		got, err := concurrency.ParsePriority(text)
		if got != concurrency.Normal || err == nil || !strings.Contains(err.Error(), "use low, normal or critical") || len(err.Error()) > 200 {
			t.Errorf("%.30q: %v, %v", text, got, err)
		}
	}
}

func TestPriorityAsText(t *testing.T) {
	t.Parallel()
	type route struct {
		Priority concurrency.Priority `json:"priority,omitempty"`
	}
	for p, want := range map[concurrency.Priority]string{
		concurrency.Low: `{"priority":"low"}`, concurrency.Normal: `{}`, concurrency.Critical: `{"priority":"critical"}`,
	} {
		text, err := json.Marshal(route{p})
		if err != nil || string(text) != want {
			t.Errorf("%s, %v; want %s", text, err, want)
		}
		var back route
		if err := json.Unmarshal(text, &back); err != nil || back.Priority != p {
			t.Errorf("%s is %v, %v", text, back.Priority, err)
		}
	}
	back := route{concurrency.Critical}
	if err := json.Unmarshal([]byte(`{"priority":"urgent"}`), &back); err == nil || back.Priority != concurrency.Critical {
		t.Errorf("%v, %v", back.Priority, err)
	}
	for p, want := range map[concurrency.Priority]string{-128: "low", -2: "low", 2: "critical", 127: "critical"} {
		if p.String() != want {
			t.Errorf("%d is %v, want %s", p, p, want)
		}
	}
}

func TestPriorityInContext(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if got := concurrency.PriorityFrom(ctx); got != concurrency.Normal {
		t.Errorf("of nobody: %v", got)
	}
	for _, p := range []concurrency.Priority{concurrency.Low, concurrency.Critical, concurrency.Normal} {
		ctx = concurrency.ContextWithPriority(ctx, p)
		if got := concurrency.PriorityFrom(ctx); got != p {
			t.Errorf("%v, want %v", got, p)
		}
	}
}

func FuzzParsePriority(f *testing.F) {
	for _, seed := range []string{"low", "normal", "critical", "", "K", "ſ", "critIcal\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := concurrency.ParsePriority(text)
		if err != nil {
			if p != concurrency.Normal {
				t.Errorf("%q is refused and still %v", text, p)
			}
			return
		}
		if again, err := concurrency.ParsePriority(p.String()); again != p || err != nil {
			t.Errorf("%q is %v, that is %v, %v", text, p, again, err)
		}
	})
}
