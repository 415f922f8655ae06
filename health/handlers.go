package health

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Live is the handler for /livez: 200 "ok" for as long as the process answers at
// all, 503 with the reason after [Health.Dead]. It looks at no check: a
// dependency that is away is no reason to restart the process.
func (h *Health) Live() http.Handler {
	return show("text/plain; charset=utf-8", func(*http.Request) (bool, []byte) {
		h.mu.Lock()
		dead := h.dead
		h.mu.Unlock()
		if dead != "" {
			return false, []byte("dead: " + dead + "\n")
		}
		return true, []byte("ok\n")
	})
}

// Ready is the handler for /readyz: the status as text, with 200 while it is
// Serving and 503 otherwise. With ?verbose a line for each dependency follows.
func (h *Health) Ready() http.Handler {
	return show("text/plain; charset=utf-8", func(r *http.Request) (bool, []byte) {
		if !r.URL.Query().Has("verbose") {
			status := h.Status()
			return status.Serving(), []byte(status + "\n")
		}
		report := h.Report()
		var b strings.Builder
		fmt.Fprintln(&b, report.Status)
		for _, name := range slices.Sorted(maps.Keys(report.Dependencies)) {
			writeLine(&b, name, report.Dependencies[name])
		}
		return report.Status.Serving(), []byte(b.String())
	})
}

// writeLine writes "[+] name", "[-] name (critical): error" or "[?] name".
func writeLine(b *strings.Builder, name string, d Dependency) {
	mark := map[Status]string{Healthy: "[+] ", Unhealthy: "[-] ", Unknown: "[?] "}[d.Status]
	b.WriteString(mark + name)
	if d.Critical {
		b.WriteString(" (critical)")
	}
	if d.Error != "" {
		b.WriteString(": " + d.Error)
	}
	b.WriteByte('\n')
}

// Detail is the handler for /health: the [Report] as JSON, with 200 while the
// status is Serving and 503 otherwise.
func (h *Health) Detail() http.Handler {
	return show("application/json", func(*http.Request) (bool, []byte) {
		report := h.Report()
		// Details that don't marshal are replaced, and the rest always does.
		body, _ := json.Marshal(report)
		return report.Status.Serving(), append(body, '\n')
	})
}

// show answers GET and HEAD with what view says, 200 or 503, never to be cached.
func show(contentType string, view func(*http.Request) (ok bool, body []byte)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "Use GET.", http.StatusMethodNotAllowed)
			return
		}
		ok, body := view(r)
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// It fails only when the client has gone.
		_, _ = w.Write(body)
	})
}
