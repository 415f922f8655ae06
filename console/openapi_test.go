package console_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/problem"
)

// The description has every call there is, and nothing else.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t)})
	w := ask(c, "GET", "/v1/openapi.json")
	var doc struct {
		OpenAPI    string                            `json:"openapi"`
		Paths      map[string]map[string]description `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
				Required   []string       `json:"required"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 || !strings.HasPrefix(doc.OpenAPI, "3.1") || w.Header().Get("Content-Type") != "application/openapi+json" {
		t.Fatalf("%d %v %v", w.Code, w.Header(), err)
	}
	var got []string
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, d := range methods {
			got = append(got, strings.ToUpper(method)+" "+path)
			if ids[d.OperationID] || d.OperationID == "" || d.Summary == "" || len(d.Tags) != 1 {
				t.Errorf("%s %s: %+v", method, path, d)
			}
			ids[d.OperationID] = true
			d.check(t, method+" "+path)
			// It is served: whatever it answers, it is not that there is no such call.
			target := strings.NewReplacer("{name}", "users", "{id}", "users-1", "{service}", "users").Replace(path)
			if method == "get" {
				method = "HEAD" // streams don't end
			}
			w := ask(c, strings.ToUpper(method), target)
			if w.Code == http.StatusMethodNotAllowed || strings.Contains(w.Body.String(), "nothing at this path") {
				t.Errorf("%s %s is not served: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	slices.Sort(got)
	want := []string{
		"DELETE /v1/services/{name}/{id}", "DELETE /v1/services/{name}/{id}/drain",
		"GET /v1/processes", "GET /v1/processes/{service}/logs", "GET /v1/services", "GET /v1/services/{name}", "GET /v1/services/{name}/pick",
		"GET /v1/services/{name}/{id}", "GET /v1/system", "GET /v1/targets", "GET /v1/watch",
		"POST /v1/processes/{service}/restart", "POST /v1/services", "POST /v1/services/{name}/{id}/drain", "PUT /v1/services/{name}/{id}/heartbeat",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, ref := range strings.Split(w.Body.String(), `"$ref":"`)[1:] {
		ref, _, _ = strings.Cut(ref, `"`)
		if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); !ok || doc.Components.Schemas[name].Properties == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	}
	for name, required := range map[string][]string{
		"Registration": {"address", "name"}, "LogLine": {"instance", "service", "stream", "text", "time"}, "Process": {"instance", "restarts", "service", "state"},
	} {
		if diff := cmp.Diff(required, slices.Sorted(slices.Values(doc.Components.Schemas[name].Required))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if registered := doc.Components.Schemas["Registered"].Properties; registered["ttl"] == nil || registered["registeredAt"] == nil {
		t.Errorf("Registered has %v", slices.Sorted(maps.Keys(registered)))
	}
	for path, media := range map[string]string{"/v1/watch": "text/event-stream", "/v1/processes/{service}/logs": "application/x-ndjson"} {
		if doc.Paths[path]["get"].Responses["200"].Content[media] == nil {
			t.Errorf("%s: no %s", path, media)
		}
	}
	if post := doc.Paths["/v1/services"]["post"].Responses; post["200"].Content["application/json"] == nil || post["201"].Content["application/json"] == nil {
		t.Errorf("register answers %v", post)
	}
	if w := ask(c, "GET", "/v1/openapi.yaml"); w.Code != 200 || !strings.Contains(w.Body.String(), "/v1/targets") {
		t.Errorf("yaml: %d", w.Code)
	}
}

// description is one call in the document.
type description struct {
	OperationID string   `json:"operationId"`
	Summary     string   `json:"summary"`
	Tags        []string `json:"tags"`
	Parameters  []struct {
		Name string `json:"name"`
		In   string `json:"in"`
	} `json:"parameters"`
	Responses map[string]struct {
		Content map[string]any `json:"content"`
	} `json:"responses"`
}

func (d description) check(t *testing.T, call string) {
	t.Helper()
	for _, part := range strings.Split(call, "/") {
		name, ok := strings.CutPrefix(strings.TrimSuffix(part, "}"), "{")
		if !ok {
			continue
		}
		declared := false
		for _, p := range d.Parameters {
			declared = declared || p.In == "path" && p.Name == name
		}
		if !declared {
			t.Errorf("%s: %s is not described", call, name)
		}
	}
	good := false
	for status, r := range d.Responses {
		good = good || status[0] == '2'
		if status[0] != '2' && r.Content[problem.ContentType] == nil {
			t.Errorf("%s: %s has the content %v", call, status, r.Content)
		}
	}
	for _, status := range []string{"401", "403"} {
		if _, ok := d.Responses[status]; !ok || !good {
			t.Errorf("%s: answers %v", call, fmt.Sprint(slices.Sorted(maps.Keys(d.Responses))))
		}
	}
}
