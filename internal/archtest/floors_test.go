package archtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// entry says what a package may import besides the standard library.
type entry struct {
	// floor: it may import packages of this module on lower floors.
	floor int
	// uses are the modules outside that it may import.
	uses []string
	// testUses are more of them, for its tests alone.
	testUses []string
	// forTests: tests of every package may import it, whatever their floor.
	forTests bool
	// suite: it is a conformance suite, and may import what is for tests.
	suite bool
}

// Modules that several packages use.
const (
	huma       = "github.com/danielgtaylor/huma/v2"
	natsClient = "github.com/nats-io/nats.go"
	natsServer = "github.com/nats-io/nats-server/v2"
	pgx        = "github.com/jackc/pgx/v5"
	promModel  = "github.com/prometheus/client_model"
	sys        = "golang.org/x/sys"
	yaml       = "go.yaml.in/yaml/v4"
)

// packages is the table of all packages, by path in the module. One line
// admits a new one; docs/architecture.md tells what the floors are for.
var packages = map[string]entry{
	"balance":             {floor: 0},
	"breaker":             {floor: 0},
	"concurrency":         {floor: 0},
	"deadline":            {floor: 0},
	"health":              {floor: 0},
	"internal/dotenv":     {floor: 0},
	"internal/manifest":   {floor: 0, uses: []string{yaml}},
	"internal/httpserver": {floor: 0},
	"internal/ports":      {floor: 0},
	"internal/process":    {floor: 0, uses: []string{sys}},
	"lifecycle":           {floor: 0},
	"problem":             {floor: 0},
	"ratelimit":           {floor: 0},
	"retry":               {floor: 0},
	"telemetry": {floor: 0,
		uses:     []string{"github.com/lmittmann/tint", "github.com/prometheus/client_golang", promModel},
		testUses: []string{"github.com/prometheus/common"}},

	"auth":                  {floor: 1, uses: []string{"github.com/golang-jwt/jwt/v5", "github.com/MicahParks/keyfunc/v3", "github.com/MicahParks/jwkset"}},
	"internal/runfile":      {floor: 1, uses: []string{sys}},
	"internal/supervise":    {floor: 1},
	"internal/postgrestest": {floor: 1, uses: []string{pgx}, forTests: true, suite: true},
	"idempotency":           {floor: 1},
	"inprocess":             {floor: 1},
	"openapi":               {floor: 1, uses: []string{huma}},
	"outlier":               {floor: 1},
	"registry":              {floor: 1},
	"resilience":            {floor: 1},

	"client":                      {floor: 2},
	"idempotency/idempotencytest": {floor: 2, forTests: true, suite: true},
	"idempotency/natsidempotency": {floor: 2, uses: []string{natsClient}},
	"idempotency/sqlidempotency":  {floor: 2, testUses: []string{pgx, "modernc.org/sqlite"}},
	"internal/workspace":          {floor: 2, uses: []string{sys}},
	"middleware":                  {floor: 2, testUses: []string{promModel}},
	"registry/memregistry":        {floor: 2, forTests: true},
	"registry/natsregistry":       {floor: 2, uses: []string{natsClient}},
	"registry/registrytest":       {floor: 2, forTests: true, suite: true},

	"engine":  {floor: 3, uses: []string{natsClient}, testUses: []string{natsServer}, forTests: true},
	"gateway": {floor: 3},
	"service": {floor: 3, testUses: []string{"github.com/prometheus/common"}},

	"console":         {floor: 4, uses: []string{huma}},
	"engine/embedded": {floor: 4, uses: []string{natsClient, natsServer, sys, "github.com/minio/highwayhash"}, forTests: true},

	"engine/join": {floor: 5},

	"platform": {floor: 6},

	"cmd/keelson":         {floor: 7, uses: []string{"github.com/fsnotify/fsnotify", "github.com/spf13/cobra", sys, yaml}},
	"examples/shop/users": {floor: 6, uses: []string{huma, pgx, "github.com/google/uuid", "github.com/pressly/goose/v3", "modernc.org/sqlite"}},

	"keelsontest": {floor: 7, forTests: true, suite: true},

	"examples/shop": {floor: 8},

	// No code of their own, so no floor matters.
	"internal/archtest": {floor: 0},
	"internal/e2e":      {floor: 8, testUses: []string{sys, "github.com/google/uuid"}},
}

// testLibraries may be imported by every test, and by nothing else.
var testLibraries = []string{
	"github.com/coder/websocket",
	"github.com/google/go-cmp",
	"go.uber.org/goleak",
	"pgregory.net/rapid",
}

func TestEveryPackageIsInTheTable(t *testing.T) {
	t.Parallel()
	onDisk := readModule(t).packages
	for path := range onDisk {
		if _, ok := packages[path]; !ok {
			t.Errorf("package %s is not in the table: add it to internal/archtest/floors_test.go, on a floor above all it imports and as low as that allows", path)
		}
	}
	for path := range packages {
		if _, ok := onDisk[path]; !ok {
			t.Errorf("package %s is in the table but not on disk: take its line out of internal/archtest/floors_test.go", path)
		}
	}
}

func TestImports(t *testing.T) {
	t.Parallel()
	for path, pkg := range readModule(t).packages {
		self, ok := packages[path]
		if !ok {
			continue // TestEveryPackageIsInTheTable says so
		}
		for _, f := range pkg.files {
			for _, imported := range f.imports {
				if wrong := judge(path, self, f.test, imported); wrong != "" {
					t.Errorf("%s imports %s: %s", f.path, imported, wrong)
				}
			}
		}
	}
}

// judge says what is wrong with an import in package path, or "".
func judge(path string, self entry, test bool, imported string) string {
	switch {
	case imported == modulePath:
		return "the root is no package"
	case within(imported, modulePath):
		return judgeOwn(path, self, test, strings.TrimPrefix(imported, modulePath+"/"))
	case !strings.Contains(strings.Split(imported, "/")[0], "."):
		if forTesting := []string{"testing", "testing/synctest", "testing/quick", "net/http/httptest"}; slices.Contains(forTesting, imported) && !test && !self.suite {
			return "that is for tests, and this is linked into the product"
		}
		return ""
	}
	allowed := self.uses
	if test {
		allowed = slices.Concat(allowed, self.testUses)
	}
	if test || self.suite {
		allowed = slices.Concat(allowed, testLibraries)
	}
	if !slices.ContainsFunc(allowed, func(module string) bool { return within(imported, module) }) {
		return fmt.Sprintf("not among the modules that %s may use %q; if it needs this one, add it in internal/archtest/floors_test.go and give the reason in docs/dependencies.md", path, allowed)
	}
	return ""
}

// judgeOwn is judge for a package of this module.
func judgeOwn(path string, self entry, test bool, imported string) string {
	other, ok := packages[imported]
	switch {
	case !ok:
		return "it is not in the table of internal/archtest/floors_test.go"
	case test && (imported == path || other.forTests):
		return ""
	case other.floor < self.floor:
		return ""
	}
	return fmt.Sprintf("%s is on floor %d, and may import only what is on a lower floor; that is on floor %d", path, self.floor, other.floor)
}

// within reports whether the import path is module's or below it.
func within(path, module string) bool {
	return path == module || strings.HasPrefix(path, module+"/")
}

// TestJudge makes sure that the rules can be broken.
func TestJudge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		from     string
		test     bool
		imported string
		ok       bool
	}{
		{"auth", false, "net/http", true},
		{"auth", false, "testing", false},
		{"auth", true, "testing", true},
		{"engine/embedded", false, "testing", false},
		{"registry/registrytest", false, "testing", true},
		{"auth", false, modulePath + "/problem", true},
		{"auth", false, modulePath + "/registry", false}, // the same floor
		{"auth", false, modulePath + "/service", false},  // a higher one
		{"auth", true, modulePath + "/service", false},   // in a test too
		{"auth", false, modulePath + "/engine/embedded", false},
		{"auth", true, modulePath + "/auth", true},            // an external test
		{"auth", true, modulePath + "/engine/embedded", true}, // made for tests
		{"auth", false, modulePath + "/nowhere", false},
		{"auth", false, modulePath, false},
		{"auth", false, "github.com/golang-jwt/jwt/v5", true},
		{"auth", false, "github.com/golang-jwt/jwt/v5/request", true},
		{"auth", false, "github.com/golang-jwt/jwt/v55", false},
		{"auth", false, natsClient, false},
		{"auth", true, natsClient, false},
		{"auth", false, "github.com/google/go-cmp/cmp", false},
		{"auth", true, "github.com/google/go-cmp/cmp", true},
		{"engine", true, natsServer + "/server", true},
		{"engine", false, natsServer + "/server", false},
	}
	for _, tt := range tests {
		if got := judge(tt.from, packages[tt.from], tt.test, tt.imported); (got == "") != tt.ok {
			t.Errorf("%s (test: %t) imports %s: judged %q, want allowed: %t", tt.from, tt.test, tt.imported, got, tt.ok)
		}
	}
}

// TestNATSStaysInItsPlace says once more what the table must never be changed
// to: everything else works on the engine's drivers alone, and a service does
// not carry a server.
func TestNATSStaysInItsPlace(t *testing.T) {
	t.Parallel()
	clients := []string{"engine", "engine/embedded", "idempotency/natsidempotency", "registry/natsregistry"}
	for path, e := range packages {
		if slices.Contains(e.uses, natsClient) && !slices.Contains(clients, path) {
			t.Errorf("%s may use %s, which only %q should", path, natsClient, clients)
		}
		if slices.Contains(e.uses, natsServer) && path != "engine/embedded" {
			t.Errorf("%s may link %s, which only engine/embedded should", path, natsServer)
		}
	}
}
