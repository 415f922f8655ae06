package platform

import (
	"context"
	"io"
)

// Run is Main with everything in this process, as far as it can be tested in one
// of many: it returns the exit code.
func Run(ctx context.Context, cfg Config, args []string, stdout, stderr io.Writer, services ...Service) int {
	m := monolith{config: cfg, services: services, program: "shop", stdout: stdout, stderr: stderr}
	return m.run(ctx, args)
}
