package main

import (
	"errors"
	"path/filepath"

	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/workspace"
)

// openWorkspace takes the project's folder .keelson for `keelson up`.
func openWorkspace(project string, ephemeral bool) (*workspace.Workspace, error) {
	w, err := workspace.Open(project, "keelson up", ephemeral)
	if locked, ok := errors.AsType[*workspace.LockedError](err); ok {
		return nil, &failure{
			code: exitConflict, message: locked.Error(),
			hint: "stop it first, or use its gateway: its addresses are in " + runfile.Path(locked.Project),
		}
	}
	if errors.Is(err, workspace.ErrNotPrivate) {
		return nil, &failure{
			code: exitFailed, message: err.Error(),
			hint: "make it yours alone: chown it to you, and chmod 700 " + filepath.Join(project, runfile.Folder),
		}
	}
	return w, err
}
