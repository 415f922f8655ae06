package users_test

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

// newAPI returns the service's handler over store, and what it logs.
func newAPI(t testing.TB, store *users.Store) (http.Handler, *logged) {
	t.Helper()
	s, log := newService(t, store)
	return s.Handler(), log
}

func newService(t testing.TB, store *users.Store, opts ...service.Option) (*service.Service, *logged) {
	t.Helper()
	log := new(logged)
	tel, err := telemetry.New(telemetry.Config{Service: "user-service", Output: log, LogLevel: slog.LevelInfo})
	if err != nil {
		t.Fatal(err)
	}
	s, err := users.NewOver(store, append(opts, service.WithTelemetry(tel))...)
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

// logged collects log lines.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

const jsonType = "application/json"

// call sends one request; a body goes with the media type given, if any.
func call(h http.Handler, method, path, media, body string) *httptest.ResponseRecorder {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, path, reader)
	r.Header.Set("X-Request-Id", "test")
	if media != "" {
		r.Header.Set("Content-Type", media)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// answer is a response as the tables below write it: times as <time>, trace ids
// left out.
func answer(w *httptest.ResponseRecorder) string {
	body := regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"`).ReplaceAllString(w.Body.String(), `<time>`)
	body = regexp.MustCompile(`,"traceId":"[0-9a-f]{32}"`).ReplaceAllString(body, "")
	return strings.TrimSpace(fmt.Sprintf("%d %s %s", w.Code, w.Header().Get("Content-Type"), strings.TrimSpace(body)))
}

// refusal is a problem as it is sent; fields are pairs of pointer and detail.
func refusal(status int, code, detail, path string, fields ...string) string {
	list := ""
	for pair := range slices.Chunk(fields, 2) {
		list += fmt.Sprintf(`,{"pointer":%q,"detail":%q}`, pair[0], pair[1])
	}
	if list != "" {
		list = `,"errors":[` + list[1:] + `]`
	}
	retryable := ""
	if status == 503 {
		retryable = `,"retryable":true`
	}
	return fmt.Sprintf(`%d application/problem+json {"type":"urn:keelson:problem:%s","title":"%s","status":%d,"detail":%q,"instance":"%s","code":"%s","requestId":"test"%s%s}`,
		status, code, http.StatusText(status), status, detail, path, code, retryable, list)
}

const (
	fieldsWrong = "The request has fields that are missing, wrong or unknown."
	unknownUser = "There is no user with this id."
	emailTaken  = "Another user has this email address."
	badEmail    = "is not an address of at most 254 ASCII characters: give one like ann@example.org"
)

func invalid(path string, fields ...string) string {
	return refusal(422, "invalid", fieldsWrong, path, fields...)
}

func TestAPI(t *testing.T) {
	t.Parallel()
	onEach(t, testAPI)
}

func testAPI(t *testing.T, b backend) {
	s := openAt(t, b.address(t))
	h, log := newAPI(t, s)
	ann, bob := create(t, s, "Ann", "ann@example.org"), create(t, s, "Bob", "bob@example.org")
	annJSON := fmt.Sprintf(`{"id":"%s","name":"Ann","email":"ann@example.org","createdAt":<time>,"updatedAt":<time>}`, ann.ID)
	bobJSON := fmt.Sprintf(`{"id":"%s","name":"Bob","email":"bob@example.org","createdAt":<time>,"updatedAt":<time>}`, bob.ID)
	one, nobody := "/users/"+ann.ID, "/users/0193bafe-0000-7000-8000-000000000000"
	long := strings.Repeat("x", 63) + "."
	email255 := "a@" + long + long + long + strings.Repeat("x", 60) + "y"

	tests := []struct{ name, method, path, media, body, want string }{
		{"list", "GET", "/users", "", "", "200 application/json [" + annJSON + "," + bobJSON + "]"},
		{"list after the first", "GET", "/users?after=" + ann.ID, "", "", "200 application/json [" + bobJSON + "]"},
		{"list after the first, in capitals", "GET", "/users?after=" + strings.ToUpper(ann.ID), "", "", "200 application/json [" + bobJSON + "]"},
		{"list after the last", "GET", "/users?limit=200&after=" + bob.ID, "", "", "200 application/json []"},
		{"limit too small", "GET", "/users?limit=0", "", "", invalid("/users", "#query/limit", "expected number >= 1")},
		{"limit too large", "GET", "/users?limit=201", "", "", invalid("/users", "#query/limit", "expected number <= 200")},
		{"limit no number", "GET", "/users?limit=hunter2", "", "", invalid("/users", "#query/limit", "invalid integer")},
		{"after no id", "GET", "/users?after=hunter2", "", "", invalid("/users", "#query/after", "expected string to be RFC 4122 uuid")},

		{"get", "GET", one, "", "", "200 application/json " + annJSON},
		{"get unknown", "GET", nobody, "", "", refusal(404, "not_found", unknownUser, nobody)},
		{"get no id", "GET", "/users/7", "", "", refusal(404, "not_found", unknownUser, "/users/7")},
		{"get an id in capitals", "GET", "/users/" + strings.ToUpper(ann.ID), "", "", refusal(404, "not_found", unknownUser, "/users/"+strings.ToUpper(ann.ID))},
		{"get no text", "GET", "/users/%00%ff", "", "", refusal(404, "not_found", unknownUser, "/users/%00%ff")},
		{"get an injection", "GET", "/users/'%20OR%201=1--", "", "", refusal(404, "not_found", unknownUser, "/users/'%20OR%201=1--")},

		{"no body", "POST", "/users", jsonType, "", refusal(400, "malformed_body", "The request needs a body.", "/users")},
		{"malformed", "POST", "/users", jsonType, `{"name":"hunter2`, refusal(400, "malformed_body", "The request body is not JSON.", "/users")},
		{"malformed in the middle", "POST", "/users", jsonType, `{"name":hunter2}`, refusal(400, "malformed_body", "The request body is not JSON: there is an error at byte 9.", "/users")},
		{"two values", "POST", "/users", jsonType, `{"name":"N","email":"n@example.org"} {}`, refusal(400, "malformed_body", "The request body is not JSON.", "/users")},
		{"not an object", "POST", "/users", jsonType, `[]`, invalid("/users", "", "expected object")},
		{"null", "POST", "/users", jsonType, `null`, invalid("/users", "", "expected object")},
		{"empty object", "POST", "/users", jsonType, `{}`, invalid("/users", "/email", "is required", "/name", "is required")},
		{"null fields", "POST", "/users", jsonType, `{"name":null,"email":null}`, invalid("/users", "/email", "expected string", "/name", "expected string")},
		{"mistyped", "POST", "/users", jsonType, `{"name":7,"email":["a@b"]}`, invalid("/users", "/email", "expected string", "/name", "expected string")},
		{"unknown fields", "POST", "/users", jsonType, `{"id":"x","createdAt":"x","updatedAt":"x","name":"N","email":"n@example.org"}`,
			invalid("/users", "/createdAt", "is not a known field", "/id", "is not a known field", "/updatedAt", "is not a known field")},
		{"a slash in an unknown field", "POST", "/users", jsonType, `{"a/b~":"x","name":"N","email":"n@example.org"}`, invalid("/users", "/a~1b~0", "is not a known field")},
		{"another case", "POST", "/users", jsonType, `{"Name":"N","email":"n@example.org"}`,
			invalid("/users", "/name", "is required", "/Name", "is not a known field; did you mean name?")},
		{"empty name", "POST", "/users", jsonType, `{"name":"","email":"n@example.org"}`, invalid("/users", "/name", "expected length >= 1")},
		{"blank name, bad email", "POST", "/users", jsonType, `{"name":" \u00a0\t","email":"n@[example"}`, invalid("/users", "/email", "expected string to be RFC 5322 email")},
		{"blank name, decorated email", "POST", "/users", jsonType, `{"name":" \u00a0\t","email":"N <n@example.org>"}`,
			invalid("/users", "/name", "is empty: give 1 to 100 characters", "/email", badEmail)},
		{"long name", "POST", "/users", jsonType, `{"name":"` + strings.Repeat("ü", 101) + `","email":"n@example.org"}`, invalid("/users", "/name", "is longer than 100 characters")},
		{"line break in the name", "POST", "/users", jsonType, `{"name":"A\nB","email":"n@example.org"}`, invalid("/users", "/name", "has control characters, such as a line break: remove them")},
		{"email with a space", "POST", "/users", jsonType, `{"name":"N","email":" n@example.org"}`, invalid("/users", "/email", badEmail)},
		{"email not ASCII", "POST", "/users", jsonType, `{"name":"N","email":"ñ@example.org"}`, invalid("/users", "/email", badEmail)},
		{"email too long", "POST", "/users", jsonType, `{"name":"N","email":"` + email255 + `"}`, invalid("/users", "/email", "expected length <= 254")},
		{"email taken", "POST", "/users", jsonType, `{"name":"N","email":"ANN@Example.ORG"}`, refusal(409, "conflict", emailTaken, "/users", "/email", "is taken")},
		{"too large", "POST", "/users", jsonType, `{"name":"` + strings.Repeat("x", 8<<10) + `"}`, refusal(413, "payload_too_large", "The request body is larger than the limit of 8192 bytes.", "/users")},
		{"too large for all", "POST", "/users", jsonType, strings.Repeat(" ", 1<<20+1), refusal(413, "payload_too_large", "The request body is larger than the limit of 1048576 bytes.", "/users")},
		{"media type", "POST", "/users", "text/plain", `{"name":"N","email":"n@example.org"}`, refusal(415, "unsupported_media_type", "Send the body with the Content-Type application/json.", "/users")},
		{"no media type", "POST", "/users", "", `{"name":"N","email":"n@example.org"}`, refusal(415, "unsupported_media_type", "Send the body with the Content-Type application/json.", "/users")},

		{"put unknown", "PUT", nobody, jsonType, `{"name":"N","email":"n@example.org"}`, refusal(404, "not_found", unknownUser, nobody)},
		{"put malformed", "PUT", one, jsonType, `{`, refusal(400, "malformed_body", "The request body is not JSON.", one)},
		{"put half", "PUT", one, jsonType, `{"name":"N"}`, invalid(one, "/email", "is required")},
		{"put a new id", "PUT", one, jsonType, `{"id":"x","createdAt":"x","name":"N","email":"n@example.org"}`, invalid(one, "/createdAt", "is not a known field", "/id", "is not a known field")},
		{"put blank", "PUT", one, jsonType, `{"name":" ","email":"n@example.org"}`, invalid(one, "/name", "is empty: give 1 to 100 characters")},
		{"put a taken email", "PUT", one, jsonType, `{"name":"N","email":"BOB@example.org"}`, refusal(409, "conflict", emailTaken, one, "/email", "is taken")},
		{"put too large", "PUT", one, jsonType, strings.Repeat(" ", 8<<10+1), refusal(413, "payload_too_large", "The request body is larger than the limit of 8192 bytes.", one)},
		{"put media type", "PUT", one, "text/plain", `{"name":"N","email":"n@example.org"}`, refusal(415, "unsupported_media_type", "Send the body with the Content-Type application/json.", one)},

		{"delete unknown", "DELETE", nobody, "", "", refusal(404, "not_found", unknownUser, nobody)},
	}
	t.Run("answers", func(t *testing.T) { // returns when all rows have run
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				if diff := cmp.Diff(tt.want, answer(call(h, tt.method, tt.path, tt.media, tt.body))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	})
	if diff := cmp.Diff([]users.User{ann, bob}, list(t, s)); diff != "" {
		t.Errorf("refused requests changed something (-want +got):\n%s", diff)
	}
	if text := log.String(); strings.Contains(text, "hunter2") {
		t.Errorf("the log repeats what was refused:\n%s", text)
	}
}

// The life of one user, with all that the answers say.
func TestAPIUser(t *testing.T) {
	t.Parallel()
	onEach(t, testAPIUser)
}

func testAPIUser(t *testing.T, b backend) {
	s := openAt(t, b.address(t))
	h, _ := newAPI(t, s)
	name := strings.Repeat("ü", 100) // characters, not bytes; and the spaces don't count
	email := strings.Repeat("a", 64) + "@" + strings.Repeat("b.", 94) + "x"
	w := call(h, "POST", "/users", "application/json; charset=utf-8", fmt.Sprintf(`{"name":"  %s ","email":"%s"}`, name, email))
	var u users.User
	if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil || w.Code != 201 {
		t.Fatalf("POST: %s", answer(w))
	}
	if len(email) != 254 || u.Name != name || u.Email != email || w.Header().Get("Location") != "/users/"+u.ID {
		t.Errorf("created %v at %q", u, w.Header().Get("Location"))
	}
	w = call(h, "GET", w.Header().Get("Location"), "", "")
	if want := `{"id":"` + u.ID + `","name":"` + name + `","email":"` + email + `","createdAt":<time>,"updatedAt":<time>}`; answer(w) != "200 application/json "+want {
		t.Errorf("GET: %s", answer(w))
	}

	replaced := u
	for range 2 { // a repeated PUT leaves the same behind
		w = call(h, "PUT", "/users/"+u.ID, jsonType, `{"email":"B@x.org","name":"B"}`)
		if err := json.Unmarshal(w.Body.Bytes(), &replaced); err != nil || w.Code != 200 {
			t.Fatalf("PUT: %s", answer(w))
		}
		want := users.User{ID: u.ID, Name: "B", Email: "B@x.org", CreatedAt: u.CreatedAt, UpdatedAt: replaced.UpdatedAt}
		if diff := cmp.Diff(want, replaced); diff != "" || !replaced.UpdatedAt.After(u.UpdatedAt) {
			t.Errorf("updated %v, before %v (-want +got):\n%s", replaced.UpdatedAt, u.UpdatedAt, diff)
		}
	}
	if got, err := s.Get(t.Context(), u.ID); err != nil || got != replaced {
		t.Errorf("stored %v, %v; answered %v", got, err, replaced)
	}

	if got := answer(call(h, "DELETE", "/users/"+u.ID, "", "")); got != "204" {
		t.Errorf("DELETE: %s", got)
	}
	if got, want := answer(call(h, "DELETE", "/users/"+u.ID, "", "")), refusal(404, "not_found", unknownUser, "/users/"+u.ID); got != want {
		t.Errorf("second DELETE: %s", got)
	}
	if w = call(h, "HEAD", "/users", "", ""); w.Code != 200 {
		t.Errorf("HEAD: %s", answer(w))
	}
	for request, want := range map[string]string{
		"PATCH /users": "405 method_not_allowed", "DELETE /users": "405 method_not_allowed",
		"GET /user": "404 not_found", "GET /users/": "404 not_found", "GET /users/1/2": "404 not_found",
	} {
		method, path, _ := strings.Cut(request, " ")
		w := call(h, method, path, "", "")
		var p struct{ Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || fmt.Sprint(w.Code, " ", p.Code) != want {
			t.Errorf("%s: %s", request, answer(w))
		}
	}
}

// Walking by Link meets every user once, in order, whatever the page size and
// wherever it begins.
func TestAPIPages(t *testing.T) {
	t.Parallel()
	onEach(t, testAPIPages)
}

func testAPIPages(t *testing.T, b backend) {
	s := openAt(t, b.quick(t))
	h, _ := newAPI(t, s)
	next := regexp.MustCompile(`^<(/users\?limit=\d+&after=[0-9a-f-]{36})>; rel="next"$`)
	var ids []string
	for i := range 60 {
		ids = append(ids, create(t, s, "U", fmt.Sprintf("u%d@example.org", i)).ID)
	}
	rapid.Check(t, func(rt *rapid.T) {
		want := ids[len(ids)-rapid.IntRange(0, len(ids)).Draw(rt, "users"):]
		size := rapid.IntRange(0, 65).Draw(rt, "page, 0 for the default")
		url := fmt.Sprintf("/users?limit=%d&", size)
		if size == 0 {
			size, url = 50, "/users?"
		}
		if before := len(ids) - len(want); before > 0 {
			url += "after=" + ids[before-1]
		}
		got, pages := []string{}, 0
		for url != "" {
			w := call(h, "GET", url, "", "")
			var page []users.User
			if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 || len(page) > size {
				rt.Fatalf("%s: %s", url, answer(w))
			}
			for _, u := range page {
				got = append(got, u.ID)
			}
			pages++
			url = ""
			if link, ok := w.Header()["Link"]; ok {
				m := next.FindStringSubmatch(link[0])
				if len(link) != 1 || m == nil {
					rt.Fatalf("Link: %q", link)
				}
				url = m[1]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Fatalf("walk (-want +got):\n%s", diff)
		}
		if most := max(1, (len(want)+size-1)/size); pages != most { // no empty page at the end
			rt.Fatalf("%d pages of %d for %d users", pages, size, len(want))
		}
	})
}

func TestAPISameEmailAtOnce(t *testing.T) {
	t.Parallel()
	onEach(t, testAPISameEmailAtOnce)
}

func testAPISameEmailAtOnce(t *testing.T, b backend) {
	address := b.address(t)
	var instances [2]http.Handler
	for i := range instances {
		instances[i], _ = newAPI(t, openAt(t, address))
	}
	var codes [100]int
	var wg sync.WaitGroup
	for i := range codes {
		wg.Go(func() {
			email := []byte("ann@example.org")
			email[i%3] -= 'a' - 'A'
			codes[i] = call(instances[i%2], "POST", "/users", jsonType, fmt.Sprintf(`{"name":"N%d","email":"%s"}`, i, email)).Code
		})
	}
	wg.Wait()
	count := map[int]int{}
	for _, c := range codes {
		count[c]++
	}
	if diff := cmp.Diff(map[int]int{201: 1, 409: 99}, count); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
}

func TestOpenAPIDocument(t *testing.T) {
	t.Parallel()
	h, _ := newAPI(t, openAt(t, "sqlite::memory:"))
	w := call(h, "GET", "/openapi.json", "", "")
	var doc struct {
		OpenAPI string
		Info    struct{ Title, Version string }
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
		}
		Components struct {
			Schemas map[string]struct {
				Required             []string
				AdditionalProperties any
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("%s: %v", answer(w), err)
	}
	got := map[string]string{}
	for path, operations := range doc.Paths {
		for method, op := range operations {
			var success []string
			for status := range op.Responses {
				if status < "300" {
					success = append(success, status)
				}
			}
			got[method+" "+path] = op.OperationID + " " + strings.Join(success, ",")
		}
	}
	want := map[string]string{
		"get /users": "list-users 200", "post /users": "create-user 201", "get /users/{id}": "get-user 200",
		"put /users/{id}": "replace-user 200", "delete /users/{id}": "delete-user 204",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-want +got):\n%s", diff)
	}
	fields := doc.Components.Schemas["UserFields"]
	if doc.OpenAPI != "3.1.0" || doc.Info.Title != "Users" || doc.Info.Version != "dev" ||
		!slices.Equal(fields.Required, []string{"name", "email"}) || fields.AdditionalProperties != false {
		t.Errorf("document: %+v", doc)
	}
}
