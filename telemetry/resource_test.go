package telemetry

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseResource(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, in string
		want     map[string]string
		err      string
	}{
		{"nothing", " ", nil, ""},
		{"two", "deployment.environment.name=prod,service.namespace=shop", map[string]string{"deployment.environment.name": "prod", "service.namespace": "shop"}, ""},
		{"blanks around", " a = 1 , b=2", map[string]string{"a": "1", "b": "2"}, ""},
		{"percent-encoded", "a%2Cb=1%2C%202%3D%C3%A9,plus=a+b", map[string]string{"a,b": "1, 2=é", "plus": "a+b"}, ""},
		{"equals sign in the value", "a=b=c", map[string]string{"a": "b=c"}, ""},
		{"empty value", "a=", map[string]string{"a": ""}, ""},
		{"last wins", "a=1,a=2", map[string]string{"a": "2"}, ""},
		{"bad percent", "ok=1,a=%zz", nil, "member 2: bad percent-encoding"},
		{"cut percent", "a=%2", nil, "member 1: bad percent-encoding"},
		{"no equals sign", "a", nil, "member 1: no equals sign"},
		{"no key", "=secret", nil, "member 1: no key"},
		{"not UTF-8", "a=%ff", nil, "member 1: not UTF-8"},
		{"too many", strings.Repeat("a=1,", 128) + "b=1", nil, "member 129: more than 128"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseResource(c.in)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got): %s", diff)
			}
			switch {
			case c.err == "" && err != nil:
				t.Error(err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("error %v, want %q", err, c.err)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the error shows a value: %v", err)
			}
		})
	}
}

func FuzzParseResource(f *testing.F) {
	f.Add("a=1,b=%20")
	f.Add("=,%")
	f.Fuzz(func(t *testing.T, s string) {
		attributes, err := parseResource(s)
		if err != nil && attributes != nil {
			t.Fatalf("%v, and yet %v", err, attributes)
		}
		if _, err := open(Config{Output: t.Output()}, env("OTEL_RESOURCE_ATTRIBUTES", s)); err != nil {
			t.Fatalf("resource attributes must never stop the process: %v", err)
		}
	})
}

// env is an environment of the pairs given.
func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestWhoWins(t *testing.T) {
	t.Parallel()
	cfg := Config{Service: "code", Version: "1", Instance: "i1"}
	cases := []struct {
		name string
		cfg  Config
		env  []string
		want map[string]string
	}{
		{"code", cfg, nil, map[string]string{"service.name": "code", "service.version": "1", "service.instance.id": "i1"}},
		{"attributes over code", cfg, []string{"OTEL_RESOURCE_ATTRIBUTES", "service.name=attr,service.version=2"}, map[string]string{"service.name": "attr", "service.version": "2", "service.instance.id": "i1"}},
		{"name over all", cfg, []string{"OTEL_RESOURCE_ATTRIBUTES", "service.name=attr", "OTEL_SERVICE_NAME", "name"}, map[string]string{"service.name": "name", "service.version": "1", "service.instance.id": "i1"}},
		{"nobody", Config{}, nil, map[string]string{"service.name": "unknown_service:telemetry.test"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := newResource(c.cfg, env(c.env...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got): %s", diff)
			}
		})
	}
}

func TestLabelName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"service.name": "service_name", "k8s.pod-uid": "k8s_pod_uid", "1st": "key_1st", "_x": "key_x", "__name__": "key__name__", "größe": "gr__e", "é": "key_",
	} {
		if got := labelName(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}
