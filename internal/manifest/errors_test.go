package manifest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/internal/manifest"
)

func problems(t *testing.T, text string) manifest.Errors {
	t.Helper()
	m, err := manifest.Parse("k.yaml", []byte(text))
	errs, ok := errors.AsType[manifest.Errors](err)
	if !ok || len(errs) == 0 || m != nil {
		t.Fatalf("accepted as %+v, error %v", m, err)
	}
	return errs
}

// Each text has one problem; the error is given whole, so that its position and its fix are part of the test.
func TestRefuses(t *testing.T) {
	t.Parallel()
	route := func(s string) string { return "version: 1\ngateway: {routes: [{" + s + "}]}\n" }
	service := func(s string) string { return "version: 1\nservices:\n  a: {" + s + "}\n" }
	gateway := func(s string) string { return "version: 1\ngateway: {" + s + "}\n" }
	for text, want := range map[string]string{
		// The document.
		"":                                `k.yaml:1:1: the file is empty; begin with: version: 1`,
		"# only a comment\n":              `k.yaml:1:1: the file is empty; begin with: version: 1`,
		"~":                               `k.yaml:1:1: the file is empty; begin with: version: 1`,
		"hello":                           `k.yaml:1:1: this must be a mapping, not text; write key: value pairs`,
		"[1]":                             `k.yaml:1:1: this must be a mapping, not a list; write key: value pairs`,
		"version: 1\n---\nversion: 1\n":   `k.yaml:2:1: there is a second YAML document; remove the --- and what follows`,
		"version: 1\n\tgateway: {}\n":     `k.yaml:2:1: not valid YAML: found a tab character that violates indentation while scanning a plain scalar; indent with spaces`,
		"version: 1\nadmin: {listen: [\n": `k.yaml:3:1: not valid YAML: did not find expected node content while parsing a flow node; check the indentation, the colons and the quotes here`,
		"version: 1\na: b: c\n":           `k.yaml:2:5: not valid YAML: mapping values are not allowed in this context; write a value that contains ": " in quotes`,
		"version: 1\na: *b\n":             `k.yaml:2:4: not valid YAML: unknown anchor 'b' referenced; if a value begins with *, write it in quotes`,
		"version: 1\na: \"é\xff\"\n":      `k.yaml:2:6: the text is not UTF-8; save the file as plain UTF-8 text`,
		"version: 1\na: \x00\n":           `k.yaml:2:4: there is a control character (U+0000); save the file as plain UTF-8 text`,

		// Keys.
		"gateway: {}":                              `k.yaml:1:1: the version is missing; write as the first line: version: 1`,
		"version: 1\nservice: {}":                  `k.yaml:2:1: unknown key "service"; did you mean "services"?`,
		"version: 1\nVersion: 1":                   `k.yaml:2:1: unknown key "Version"; did you mean "version"?`,
		"version: 1\nfoobar: 1":                    `k.yaml:2:1: unknown key "foobar"; known are version, gateway, admin, engine, services`,
		"version: 1\nversion: 1":                   `k.yaml:2:1: key "version" stands twice, first in line 1; keep one of them`,
		"version: 1\n<<: {admin: {}}":              `k.yaml:2:1: a key must be text, not a value with a tag; write the keys out`,
		"version: 1\n1: 2":                         `k.yaml:2:1: a key must be text, not a number; write it in quotes`,
		gateway(`lisen: "127.0.0.1:1"`):            `k.yaml:2:11: gateway: unknown key "lisen"; did you mean "listen"?`,
		gateway(`auth: {jwt: {key: []}}`):          `k.yaml:2:24: gateway.auth.jwt: unknown key "key"; did you mean "keys"?`,
		route(`path: /a, service: a, "\e[31m": 1`): `k.yaml:2:43: gateway.routes[0]: unknown key "\x1b[31m"; known are path, host, service, backends, stripPrefix, methods, headers, scopes, public, timeout, priority, rateLimit, allow, deny`,

		// Version.
		"version: 2":     `k.yaml:1:10: version: version 2 is not known; write version: 1, or use the keelson this file is for`,
		"version: \"1\"": `k.yaml:1:10: version: this must be a whole number, not text; write it without quotes`,
		"version: 1.0":   `k.yaml:1:10: version: this must be a whole number, not a number; write a whole number from 0 to 1000000`,

		// Listeners and ports.
		gateway(`listen: 3000`):                    `k.yaml:2:19: gateway.listen: this must be text, not a number; write it in quotes`,
		gateway(`listen: localhost`):               `k.yaml:2:19: gateway.listen: "localhost" is not host:port; write host:port, such as 127.0.0.1:3000`,
		gateway(`listen: ""`):                      `k.yaml:2:19: gateway.listen: "" is not host:port; write host:port, such as 127.0.0.1:3000`,
		gateway(`listen: "h:65536"`):               `k.yaml:2:19: gateway.listen: "h:65536" has no port from 0 to 65535; write host:port, such as 127.0.0.1:3000`,
		gateway(`listen: "h:http"`):                `k.yaml:2:19: gateway.listen: "h:http" has no port from 0 to 65535; write host:port, such as 127.0.0.1:3000`,
		gateway(`listen: "a b:1"`):                 `k.yaml:2:19: gateway.listen: "a b:1" has no valid host; write host:port, such as 127.0.0.1:3000`,
		service(`command: [x], port: 65536`):       `k.yaml:3:27: services.a.port: "65536" is not allowed; write a whole number from 0 to 65535`,
		service(`command: [x], port: 0xff`):        `k.yaml:3:27: services.a.port: "0xff" is not allowed; write a whole number from 0 to 65535`,
		service(`command: [x], port: 3000`):        `k.yaml:3:27: services.a.port: port 3000 is the default of gateway.listen; use another one, or set gateway.listen`,
		"version: 1\nadmin: {listen: \":3000\"}\n": `k.yaml:2:17: admin.listen: port 3000 is the default of gateway.listen; use another one, or set gateway.listen`,
		"version: 1\nservices:\n  a: {command: [x], port: 1}\n  b: {command: [x], port: 1}\n": `k.yaml:4:27: services.b.port: port 1 is taken by services.a.port in line 3; use another port, or 0 for a free one`,

		// The gateway.
		gateway(`auth: {jwt: {keys: [k.pem], audience: a}}`): `k.yaml:2:23: gateway.auth.jwt: the issuer is missing; set it to the "iss" of the tokens to accept`,
		gateway(`auth: {jwt: {keys: [k.pem], issuer: a}}`):   `k.yaml:2:23: gateway.auth.jwt: the audience is missing; set it to the "aud" of the tokens to accept`,
		gateway(`auth: {jwt: {issuer: a, audience: b}}`):     `k.yaml:2:23: gateway.auth.jwt: there is no key to verify the issuer's tokens with; give keys or jwks`,
		gateway(`auth: {jwt: {keys: k.pem}}`):                `k.yaml:2:30: gateway.auth.jwt.keys: this must be a list, not text; write it like [a, b]`,
		gateway(`cors: {origins: ["https://a.example/"]}`):   `k.yaml:2:28: gateway.cors.origins[0]: "https://a.example/" is not an origin; write https://shop.example, or * for all`,
		gateway(`cors: {origins: [shop.example]}`):           `k.yaml:2:28: gateway.cors.origins[0]: "shop.example" is not an origin; write https://shop.example, or * for all`,
		gateway(`rateLimit: {limit: -1}`):                    `k.yaml:2:30: gateway.rateLimit.limit: "-1" is not allowed; write a whole number from 0 to 1000000000`,
		gateway(`rateLimit: {window: 60}`):                   `k.yaml:2:31: gateway.rateLimit.window: the unit is missing; write 60s if seconds are meant`,
		gateway(`rateLimit: {window: 0s}`):                   `k.yaml:2:31: gateway.rateLimit.window: the time must be more than 0; write a time with its unit, such as 500ms, 60s or 5m`,
		gateway(`rateLimit: {window: soon}`):                 `k.yaml:2:31: gateway.rateLimit.window: "soon" is not a time; write a time with its unit, such as 500ms, 60s or 5m`,
		gateway(`rateLimit: {window: [1s]}`):                 `k.yaml:2:31: gateway.rateLimit.window: this must be a time, not a list; write a time with its unit, such as 500ms, 60s or 5m`,
		gateway(`rateLimit: {by: route}`):                    `k.yaml:2:23: gateway.rateLimit: unknown key "by"; known are limit, window`,
		gateway(`trustedProxies: [10.0.0.0/33]`):             `k.yaml:2:28: gateway.trustedProxies[0]: "10.0.0.0/33" is neither; write an address or a range, such as 10.0.0.7 or 10.0.0.0/8`,
		gateway(`trustedProxies: ["::ffff:0:0/95"]`):         `k.yaml:2:28: gateway.trustedProxies[0]: "::ffff:0:0/95" is neither; write an address or a range, such as 10.0.0.7 or 10.0.0.0/8`,
		gateway(`trustedProxies: [proxy]`):                   `k.yaml:2:28: gateway.trustedProxies[0]: "proxy" is neither; write an address or a range, such as 10.0.0.7 or 10.0.0.0/8`,
		gateway(`routes: {path: /a}`):                        `k.yaml:2:19: gateway.routes: this must be a list, not a mapping; write it like [a, b]`,

		// Routes.
		route(`service: a`):                                                             `k.yaml:2:20: gateway.routes[0]: the route has no path; add path: /api/…/*`,
		route(`path: /a`):                                                               `k.yaml:2:20: gateway.routes[0]: the route has no service; add service: <name>`,
		route(`path: a, service: a`):                                                    `k.yaml:2:27: gateway.routes[0].path: "a" does not begin with /; write it like /api/users/* or /health`,
		route(`path: /a*, service: a`):                                                  `k.yaml:2:27: gateway.routes[0].path: "/a*" has a * elsewhere than as its last segment; write it like /api/users/* or /health`,
		route(`path: /a/*/b, service: a`):                                               `k.yaml:2:27: gateway.routes[0].path: "/a/*/b" has a * elsewhere than as its last segment; write it like /api/users/* or /health`,
		route(`path: /a//b, service: a`):                                                `k.yaml:2:27: gateway.routes[0].path: "/a//b" has an empty segment, . or ..; write it like /api/users/* or /health`,
		route(`path: /a/../b, service: a`):                                              `k.yaml:2:27: gateway.routes[0].path: "/a/../b" has an empty segment, . or ..; write it like /api/users/* or /health`,
		route(`path: "/a?b", service: a`):                                               `k.yaml:2:27: gateway.routes[0].path: "/a?b" has a space or one of ? # % { } \; write it like /api/users/* or /health`,
		route(`path: /a, service: A`):                                                   `k.yaml:2:40: gateway.routes[0].service: "A" is not a service's name; use a–z, 0–9 and -, at most 63, not - first`,
		route(`path: /a, service: a, host: "a:80"`):                                     `k.yaml:2:49: gateway.routes[0].host: "a:80" is not a host name; write a host name without port, such as shop.example`,
		route(`path: /a/*, service: a, stripPrefix: /b`):                                `k.yaml:2:58: gateway.routes[0].stripPrefix: "/b" is not a prefix of the path "/a/*"; write the beginning of the path up to a /, such as /api`,
		route(`path: /api/x, service: a, stripPrefix: /ap`):                             `k.yaml:2:60: gateway.routes[0].stripPrefix: "/ap" is not a prefix of the path "/api/x"; write the beginning of the path up to a /, such as /api`,
		route(`path: /a, service: a, methods: [get]`):                                   `k.yaml:2:53: gateway.routes[0].methods[0]: "get" is not an HTTP method; write it like GET`,
		route(`path: /a, service: a, methods: [GET, GET]`):                              `k.yaml:2:58: gateway.routes[0].methods[1]: GET stands twice; remove one of them`,
		route(`path: /a, service: a, methods: [CONNECT]`):                               `k.yaml:2:53: gateway.routes[0].methods[0]: a gateway does not pass on CONNECT; remove it`,
		route(`path: /a, service: a, methods: GET`):                                     `k.yaml:2:52: gateway.routes[0].methods: this must be a list, not text; write it like [a, b]`,
		route(`path: /a, service: a, headers: {X Y: a}`):                                `k.yaml:2:53: gateway.routes[0].headers: "X Y" is not a header's name; write it like X-Version`,
		route(`path: /a, service: a, headers: {X-Y: a, x-y: b}`):                        `k.yaml:2:61: gateway.routes[0].headers: header "X-Y" stands twice; keep one of them; upper and lower case are the same`,
		route(`path: /a, service: a, headers: {X: 2}`):                                  `k.yaml:2:56: gateway.routes[0].headers.X: this must be text, not a number; write it in quotes`,
		route(`path: /a, service: a, headers: {X: "a\nb"}`):                             `k.yaml:2:56: gateway.routes[0].headers.X: a header's value cannot have control characters; write one line`,
		route(`path: /a, service: a, scopes: [a b]`):                                    `k.yaml:2:52: gateway.routes[0].scopes[0]: "a b" is not a scope; write one word for each`,
		route(`path: /a, service: a, public: yes`):                                      `k.yaml:2:51: gateway.routes[0].public: this must be true or false, not text; write true or false`,
		route(`path: /a, service: a, public: true, scopes: [a]`):                        `k.yaml:2:51: gateway.routes[0].public: a public route needs no token, so it cannot ask for scopes; remove public or scopes`,
		route(`path: /a, service: a, public: true, rateLimit: {limit: 1, by: subject}`): `k.yaml:2:51: gateway.routes[0].public: a public route has no subject to limit by; limit by client or route`,
		route(`path: /a, service: a, priority: hihg`):                                   `k.yaml:2:53: gateway.routes[0].priority: "hihg" is not known; known are low, normal, critical`,
		route(`path: /a, service: a, priority: critcal`):                                `k.yaml:2:53: gateway.routes[0].priority: "critcal" is not known; did you mean "critical"?`,
		route(`path: /a, service: a, timeout: -1s`):                                     `k.yaml:2:52: gateway.routes[0].timeout: the time must be more than 0; write a time with its unit, such as 500ms, 60s or 5m`,
		route(`path: /a, service: a, rateLimit: {limit: 0}`):                            `k.yaml:2:62: gateway.routes[0].rateLimit.limit: "0" is not allowed; write a whole number from 1 to 1000000000`,
		route(`path: /a, service: a, rateLimit: {by: route}`):                           `k.yaml:2:54: gateway.routes[0].rateLimit: the limit is missing; add limit: 100`,
		route(`path: /a, service: a, rateLimit: {limit: 1, by: cleint}`):                `k.yaml:2:69: gateway.routes[0].rateLimit.by: "cleint" is not known; did you mean "client"?`,
		route(`path: /a, service: a, deny: [x]`):                                        `k.yaml:2:50: gateway.routes[0].deny[0]: "x" is neither; write an address or a range, such as 10.0.0.7 or 10.0.0.0/8`,
		route(`path: /a, service: a, backends: [{service: b}]`):                         `k.yaml:2:53: gateway.routes[0].backends: the route has both service and backends; keep one of them`,
		route(`path: /a, backends: [{weight: 1}]`):                                      `k.yaml:2:42: gateway.routes[0].backends[0]: the backend has no service; add service: <name>`,
		route(`path: /a, backends: [{service: b, weight: 0}]`):                          `k.yaml:2:41: gateway.routes[0].backends: no backend would get a request; give a weight above 0 to one of them`,
		route(`path: /a, backends: [{service: b}, {service: b}]`):                       `k.yaml:2:66: gateway.routes[0].backends[1].service: "b" is a backend already; add up their weights`,
		"version: 1\ngateway:\n  routes:\n  - {path: /a, service: a}\n  - {path: /a, service: b, methods: [GET]}\n": `k.yaml:5:37: gateway.routes[1]: GET "/a" is routed already in line 4; remove one of them, or change its path, host or methods`,

		// The engine.
		"version: 1\nengine: {durability: fats}":                                `k.yaml:2:22: engine.durability: "fats" is not known; did you mean "fast"?`,
		"version: 1\nengine: {url: \"http://root:hunter2@h:4222\"}":             `k.yaml:2:15: engine.url: this is not a nats:// or tls:// address; write it like nats://127.0.0.1:4222`,
		"version: 1\nengine: {url: \"wss://h:4222\"}":                           `k.yaml:2:15: engine.url: this is not a nats:// or tls:// address; write it like nats://127.0.0.1:4222`,
		"version: 1\nengine: {url: \"tls://h:4222,nats://root:hunter2@h\"}":     `k.yaml:2:15: engine.url: this has a user or password in it, which belong into credentials; write it like nats://127.0.0.1:4222`,
		"version: 1\nengine: {url: \"nats://h:4222\", listen: \"h:4222\"}":      `k.yaml:2:9: engine: there is both listen and url; keep listen for the embedded engine, or url for an external one`,
		"version: 1\nengine: {credentials: 31337}":                              `k.yaml:2:23: engine.credentials: this must be text, not a number; write it in quotes`,
		"version: 1\ngateway: {auth: {jwt: {jwks: \"ftp://root:hunter2@h/\"}}}": `k.yaml:2:30: gateway.auth.jwt.jwks: this is not an http(s) address; write an https address without user and password`,
		"version: 1\ngateway: {auth: {jwt: {jwks: \"http://login.example/\"}}}": `k.yaml:2:30: gateway.auth.jwt.jwks: this is http, so that anybody on the way could swap the keys; write an https address without user and password`,

		// Services.
		"version: 1\nservices: {A: {command: [x]}}": `k.yaml:2:12: services: "A" is not a service's name; use a–z, 0–9 and -, at most 63, not - first`,
		"version: 1\nservices: {a: }":               `k.yaml:2:12: services.a: the service has neither package nor command; add package: ./path, or command: [program, argument]`,
		"version: 1\nservices: [a]":                 `k.yaml:2:11: services: this must be a mapping, not a list; write key: value pairs`,
		service(`port: 1`):                          `k.yaml:3:3: services.a: the service has neither package nor command; add package: ./path, or command: [program, argument]`,
		service(`command: []`):                      `k.yaml:3:3: services.a: the service has neither package nor command; add package: ./path, or command: [program, argument]`,
		service(`command: [""]`):                    `k.yaml:3:16: services.a.command: the program is empty; write [program, argument]`,
		service(`command: node pay.js`):             `k.yaml:3:16: services.a.command: this must be a list, not text; write it like [a, b]`,
		service(`command: [x], package: ./a`):       `k.yaml:3:16: services.a.command: the service has both package and command; keep one of them`,
		service(`package: -toolexec=x`):             `k.yaml:3:16: services.a.package: "-toolexec=x" is not a package; write a Go package such as ./cmd/users`,
		service(`command: [x], args: [-p, 80]`):     `k.yaml:3:32: services.a.args[1]: this must be text, not a number; write it in quotes`,
		service(`command: [x, "a\0b"]`):             `k.yaml:3:20: services.a.command[1]: an argument cannot hold a NUL character; remove it`,
		service(`command: [x], instances: 0`):       `k.yaml:3:32: services.a.instances: "0" is not allowed; write a whole number from 1 to 100`,
		service(`command: [x], instances: 101`):     `k.yaml:3:32: services.a.instances: "101" is not allowed; write a whole number from 1 to 100`,
		service(`command: [x], instances: two`):     `k.yaml:3:32: services.a.instances: this must be a whole number, not text; write a whole number from 1 to 100`,
		service(`command: [x], env: {A: 1}`):        `k.yaml:3:30: services.a.env.A: this must be text, not a number; write it in quotes`,
		service(`command: [x], env: {1A: x}`):       `k.yaml:3:27: services.a.env: "1A" is not the name of a variable; use A–Z, a–z, 0–9 and _, not a digit first`,
		service(`command: [x], env: {A: "a\0"}`):    `k.yaml:3:30: services.a.env.A: a variable cannot hold a NUL character; remove it`,
		service(`command: [x], env: {"a.b": 1}`):    `k.yaml:3:34: services.a.env["a.b"]: this must be text, not a number; write it in quotes`,
		service(`command: [x], dependsOn: [b]`):     `k.yaml:3:33: services.a.dependsOn[0]: there is no service "b"; known are a`,
		service(`command: [x], dependsOn: [a]`):     `k.yaml:3:33: services.a.dependsOn[0]: services depend on each other: a → a; remove one of these dependencies`,
		"version: 1\nservices:\n  a: {command: [x], dependsOn: [c]}\n  b: {command: [x], dependsOn: [a]}\n  c: {command: [x], dependsOn: [b]}\n": `k.yaml:4:33: services.b.dependsOn[0]: services depend on each other: a → c → b → a; remove one of these dependencies`,
		"version: 1\nservices:\n  a: {command: [x], dependsOn: [b, b]}\n  b: {command: [x]}\n":                                                   `k.yaml:3:36: services.a.dependsOn[1]: "b" stands twice; remove one of them`,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(want, problems(t, text).Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	errs := problems(t, `
gateway:
  lisen: 1
  rateLimit: {limit: many, window: 60}
  routes:
    - {path: api, service: users}
    - {service: users}
admin: {listen: 3100}
services:
  users: {comand: [x], port: 70000, dependsOn: [db]}
  Pay: {command: [x]}
`)
	var got []string
	for _, e := range errs {
		if e.File != "k.yaml" || e.Message == "" {
			t.Errorf("%+v", e)
		}
		got = append(got, e.Path)
	}
	want := []string{
		"", "gateway", "gateway.rateLimit.limit", "gateway.rateLimit.window", "gateway.routes[0].path", "gateway.routes[1]",
		"admin.listen", "services.users", "services.users.port", "services.users.dependsOn[0]", "services",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(errs.Error(), "\n"); n != len(want)-1 {
		t.Errorf("%d lines", n+1)
	}
}

// A secret of the file is not repeated in a message, which may end up in a log.
func TestErrorsKeepSecrets(t *testing.T) {
	t.Parallel()
	errs := problems(t, `
version: 1
gateway: {auth: {jwt: {jwks: "https://u:hunter2@login.example/"}}}
engine: {credentials: [hunter2], url: "http://u:hunter2@h"}
services:
  a: {command: run --password=hunter2, env: {PASSWORD: [hunter2]}}
  b: {command: [x], env: {PASSWORD: 2026-01-01}}
`)
	if len(errs) != 6 || strings.Contains(errs.Error(), "hunter2") || strings.Contains(errs.Error(), "2026-01-01") {
		t.Error(errs)
	}
}

// Small files that unfold into huge ones, and files that are only long, end soon and with an error.
func TestBombs(t *testing.T) {
	t.Parallel()
	var laughs strings.Builder
	laughs.WriteString("version: 1\nx0: &x0 [a, a, a, a, a, a, a, a, a, a]\n")
	for i := 1; i < 20; i++ {
		before, after := string(rune('a'+i-1)), string(rune('a'+i))
		if i == 1 {
			before = "x0"
		}
		laughs.WriteString("x" + after + ": &" + after + " [" + strings.Repeat("*"+before+", ", 9) + "*" + before + "]\n")
	}
	wide := "version: 1\nservices:\n  a: {command: [x], args: &a [" + strings.Repeat("a, ", 30_000) + "a]}\n"
	for i := range 1000 {
		wide += "  b" + strings.Repeat("b", i%50) + string(rune('a'+i/50)) + ": {command: [x], args: *a}\n"
	}
	for name, text := range map[string]string{
		"billion laughs":   laughs.String(),
		"one list shared":  wide,
		"holds itself":     "version: 1\nservices: &s {a: *s}\n",
		"list of itself":   "version: 1\ngateway: {routes: &r [*r]}\n",
		"deep":             "version: 1\na: " + strings.Repeat("[", 200_000),
		"deep and closed":  "version: 1\na: " + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"too long":         "version: 1\n#" + strings.Repeat("x", manifest.MaxBytes),
		"unknown keys":     "version: 1\n" + strings.Repeat("servces: 1\n", 50_000),
		"unknown services": "version: 1\nservices:\n  a: {command: [x], dependsOn: [" + strings.Repeat("unknown-and-rather-long-name, ", 30_000) + "x]}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			if errs := problems(t, text); len(errs) > 50 {
				t.Errorf("%d problems are told", len(errs))
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(manifest.Example())
	for _, s := range []string{
		"", "version: 1", "version: [", "a: &a [*a]", "version: 1\nservices: {a: {command: [x], dependsOn: [a]}}",
		"version: 1\ngateway: {routes: [{path: /a, service: b, headers: {x: y}, allow: [10.0.0.0/8]}]}", "\xff", "? [a]\n: b", "!!int x",
		"version: 1\nengine: {url: \"nats://a,b\"}", "{\"a\"\n: 1}", "%YAML 1.2\n---\nversion: 1\n...\n", "a: !!binary x", "\ufeffversion: 1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := manifest.Parse("k.yaml", b)
		if err == nil {
			if m == nil || m.Version != 1 || len(m.Order()) != len(m.Services) {
				t.Fatalf("%+v", m)
			}
			for _, r := range m.Gateway.Routes {
				if r.Path == "" || len(r.Backends) == 0 || len(r.Methods) == 0 {
					t.Fatalf("%+v", r)
				}
			}
			return
		}
		errs, ok := errors.AsType[manifest.Errors](err)
		if !ok || len(errs) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		for _, e := range errs {
			if e.File != "k.yaml" || e.Line < 1 || e.Column < 1 || e.Message == "" {
				t.Fatalf("%+v", e)
			}
			for _, foreign := range []string{"go-yaml", "yaml:", "manifest.", "struct", "interface", "map[", "panic", "%!"} {
				if strings.Contains(e.Message, foreign) && !strings.Contains(string(b), foreign) {
					t.Fatalf("%q shows %q", e.Message, foreign)
				}
			}
			if strings.ContainsAny(e.Error(), "\n\x1b\x00") {
				t.Fatalf("%q is not one plain line", e.Error())
			}
		}
	})
}
