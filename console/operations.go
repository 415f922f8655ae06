package console

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keelson-go/keelson/openapi"
)

// operations adds every call under /v1 to mux, and to its description.
func (c *Console) operations(mux *http.ServeMux) {
	api := openapi.New(underV1{mux}, "Keelson admin API", "1", openapi.MaxBodyBytes(maxBody), openapi.OnError(c.failed))
	doc := api.OpenAPI()
	doc.Info.Description = "How a service in any language joins the registry, and what people and programs ask the platform. " +
		"Off loopback each call needs a bearer token with the scope " + ScopeAdmin + "."
	doc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"bearer": {Type: "http", Scheme: "bearer"}}
	doc.Security = []map[string][]string{{}, {"bearer": {}}}
	doc.Tags = []*huma.Tag{
		{Name: "joining", Description: "For services that register themselves."},
		{Name: "fleet", Description: "The instances there are."},
		{Name: "system", Description: "This process, and the services it runs as processes."},
	}

	join := operation(http.MethodPost, "/services", "register", "joining", "Register an instance", 400, 409, 413, 415, 422, 429, 503)
	join.DefaultStatus = http.StatusCreated
	join.Description = "Answers 201 for a new id, and 200 when it replaced what was registered under it. " +
		"With health, passing checks renew the lease; without, the instance has to send heartbeats."
	join.Responses = map[string]*huma.Response{"200": {Description: "It replaced what was registered under this id.",
		Content: map[string]*huma.MediaType{"application/json": {Schema: doc.Components.Schemas.Schema(reflect.TypeFor[registered](), true, "")}}}}
	join.Middlewares = huma.Middlewares{c.limitJoins}
	huma.Register(api, join, c.register)
	huma.Register(api, operation(http.MethodPut, "/services/{name}/{id}/heartbeat", "heartbeat", "joining", "Renew an instance's lease", 404, 409, 503), c.heartbeat)
	huma.Register(api, operation(http.MethodDelete, "/services/{name}/{id}", "deregister", "joining",
		"Remove an instance; one that renews its own lease comes back if it lives", 503), c.deregister)

	huma.Register(api, operation(http.MethodGet, "/services", "list-instances", "fleet", "All instances, whatever their status", 400), c.services)
	huma.Register(api, operation(http.MethodGet, "/services/{name}", "list-service", "fleet", "The instances of a service, whatever their status", 400), c.service)
	huma.Register(api, operation(http.MethodGet, "/services/{name}/{id}", "get-instance", "fleet", "One instance", 404), c.instance)
	huma.Register(api, operation(http.MethodGet, "/services/{name}/pick", "pick-instance", "fleet", "One instance in rotation", 400, 503), c.pick)
	huma.Register(api, operation(http.MethodPost, "/services/{name}/{id}/drain", "drain-instance", "fleet",
		"Take an instance out of rotation until this is undone or the instance itself says otherwise", 404, 409, 503), c.drain)
	huma.Register(api, operation(http.MethodDelete, "/services/{name}/{id}/drain", "undrain-instance", "fleet", "Undo a drain", 404, 409, 503), c.undrain)
	huma.Register(api, operation(http.MethodGet, "/targets", "list-targets", "fleet", "Where to scrape metrics, as Prometheus' HTTP service discovery reads it"), c.targets)
	huma.Register(api, streaming(operation(http.MethodGet, "/watch", "watch", "fleet", "Follow the registry", 400), "text/event-stream",
		"Server-sent events. `snapshot` has every instance; `register`, `deregister` and `status-change` have the one they are about. "+
			"A reader that comes back with Last-Event-ID gets what it missed, or a snapshot.", &huma.Schema{Type: huma.TypeString}), c.watch)

	huma.Register(api, operation(http.MethodGet, "/system", "get-system", "system", "This process and what it runs on", 404), c.system)
	huma.Register(api, operation(http.MethodGet, "/processes", "list-processes", "system", "The processes this system runs", 404), c.processes)
	restart := operation(http.MethodPost, "/processes/{service}/restart", "restart-processes", "system",
		"Restart a service's processes one after another, each once the one before is healthy; answers when all are", 404, 409, 502)
	restart.DefaultStatus = http.StatusOK
	restart.Middlewares = huma.Middlewares{patient}
	huma.Register(api, restart, c.restart)
	huma.Register(api, streaming(operation(http.MethodGet, "/processes/{service}/logs", "read-logs", "system", "What a service's processes wrote", 400, 404), "application/x-ndjson",
		"One JSON object a line.", doc.Components.Schemas.Schema(reflect.TypeFor[LogLine](), true, "")), c.logs)
}

// operation describes a call under /v1. Any call may be refused for want of a
// token or of its scope.
func operation(method, path, id, tag, summary string, errors ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: "/v1" + path, Summary: summary, Tags: []string{tag},
		Errors: slices.Concat(errors, []int{http.StatusUnauthorized, http.StatusForbidden}),
	}
}

// streaming describes a call that answers with a stream.
func streaming(op huma.Operation, media, description string, schema *huma.Schema) huma.Operation {
	op.Responses = map[string]*huma.Response{"200": {
		Description: description, Content: map[string]*huma.MediaType{media: {Schema: schema}},
	}}
	return op
}

// underV1 puts the description where what it describes is.
type underV1 struct{ *http.ServeMux }

// HandleFunc adds a handler. Only the paths of the description lack the prefix.
func (m underV1) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	method, path, _ := strings.Cut(pattern, " ")
	if !strings.HasPrefix(path, "/v1/") {
		path = "/v1" + path
	}
	m.ServeMux.HandleFunc(method+" "+path, handler)
}
