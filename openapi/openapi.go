// Package openapi sets up huma, so that typed handlers give an HTTP API, its checks and its OpenAPI 3.1 document, with
// Keelson's answers:
//
//   - Every error is a problem of package problem, and none repeats what the client sent: a value that was refused may
//     be a secret.
//   - A body that is not JSON is 400 malformed_body; a missing, mistyped or unknown field 422 invalid, with a JSON pointer
//     (RFC 6901) for each; one that is too large 413; another media type, or none, 415.
//   - The names of fields are matched exactly, and a read-only field may not be sent.
//   - The document is served at /openapi.json and /openapi.yaml. There are no documentation pages, which would load
//     scripts from other hosts, and no $schema members or links in the answers.
//
// Operations are registered with huma.Register and the like. A handler returns a *problem.Problem, see [Invalid], or one
// of huma's errors; any other error is a 500 with a neutral detail, and goes to [OnError].
package openapi

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/keelson-go/keelson/problem"
)

// DefaultMaxBodyBytes is the largest request body, unless [MaxBodyBytes] or an operation says otherwise.
const DefaultMaxBodyBytes = 1 << 20

// humaMaxBodyBytes is what huma fills in for an operation that does not say.
const humaMaxBodyBytes = 1 << 20

// Option changes what [New] sets up.
type Option func(*settings)

type settings struct {
	maxBody int64
	onError func(ctx context.Context, err error)
}

// MaxBodyBytes sets the largest request body of operations that do not set their own: n bytes are accepted, n+1 not.
// n must be at least 1; otherwise the option has no effect.
func MaxBodyBytes(n int64) Option {
	return func(s *settings) {
		if n > 0 {
			s.maxBody = n
		}
	}
}

// OnError sets a function that gets each error a handler returned which the client is told nothing of but a neutral
// 5xx, so that it can be logged. It is called in the request's goroutine, with its context.
func OnError(f func(ctx context.Context, err error)) Option {
	return func(s *settings) { s.onError = f }
}

// New makes an API on the mux, such as an *http.ServeMux, and adds GET /openapi.json and /openapi.yaml to it. Operations
// must be registered before the first request.
//
// The first New changes huma for the whole process, since huma has these as global variables: errors made by huma's
// functions (huma.Error404NotFound and its like) become problems, and field names are matched exactly.
func New(mux humago.Mux, title, version string, opts ...Option) huma.API {
	setGlobals()
	s := &settings{maxBody: DefaultMaxBodyBytes}
	for _, o := range opts {
		o(s)
	}
	names := &schemaNames{types: map[string]reflect.Type{}}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI:    "3.1.0",
			Info:       &huma.Info{Title: title, Version: version},
			Components: &huma.Components{Schemas: huma.NewMapRegistry("#/components/schemas/", names.name)},
		},
		Formats: map[string]huma.Format{
			"application/json": huma.DefaultJSONFormat,
			"json":             huma.DefaultJSONFormat, // of media types that end in +json
		},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{completeProblem},
	}
	a := &adapter{Adapter: humago.NewAdapter(mux, ""), settings: s}
	api := huma.NewAPI(config, a)
	a.schemas = api.OpenAPI().Components.Schemas
	a.schemas.Schema(reflect.TypeFor[problem.Problem](), true, "") // first, so that it is always called Problem
	serveDocument(mux, api.OpenAPI())
	return api
}

// serveDocument adds the routes of the document. huma's own write it to a variable at the first request without a lock.
func serveDocument(mux humago.Mux, doc *huma.OpenAPI) {
	serve := func(path, media string, render func() ([]byte, error)) {
		once := sync.OnceValues(render)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			b, err := once()
			if err != nil {
				problem.Write(w, r, err)
				return
			}
			w.Header().Set("Content-Type", media)
			w.Header().Set("Cache-Control", "no-cache")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(b)
		})
	}
	serve("/openapi.json", "application/openapi+json", func() ([]byte, error) { return json.Marshal(doc) })
	serve("/openapi.yaml", "application/openapi+yaml", doc.YAML)
}

// schemaNames gives every struct type a name of its own. huma names by the type's name alone and panics when two packages
// have one of the same name.
type schemaNames struct {
	mu    sync.Mutex
	types map[string]reflect.Type
}

func (n *schemaNames) name(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return name // only structs are kept by name
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	// The second type of a name gets its package's name before it, and the third the folder's above: Item, OrdersItem,
	// ShopOrdersItem. Types that still share a name, such as two instances of a generic one, get underscores.
	folders := strings.Split(t.PkgPath(), "/")
	for {
		if of, taken := n.types[name]; !taken || of == t {
			n.types[name] = t
			return name
		}
		if len(folders) > 0 && folders[len(folders)-1] != "" {
			name = exported(folders[len(folders)-1]) + name
			folders = folders[:len(folders)-1]
			continue
		}
		name += "_"
	}
}

// exported makes a folder's name part of a type's name: "go-shop.v2" is GoShopV2.
func exported(folder string) string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(folder, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		first, size := utf8.DecodeRuneInString(word)
		b.WriteRune(unicode.ToUpper(first))
		b.WriteString(word[size:])
	}
	return b.String()
}
