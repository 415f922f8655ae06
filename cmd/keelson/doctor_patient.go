package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/registry"
)

// patient is what the doctor looks at. What several checks need is found out
// once.
type patient struct {
	app *app

	manifest      *manifest.Manifest // nil if there is none that can be used
	manifestError error
	dir           string       // the project's folder
	run           runfile.File // of the `keelson up` that runs in it
	runs          bool         // whether one does
	runError      error

	system    func() (systemLook, error)
	instances func() ([]registry.Instance, error)
}

func (a *app) patient(ctx context.Context, file string) *patient {
	p := &patient{app: a}
	p.manifest, p.manifestError = loadManifest(file)
	p.dir = "."
	if p.manifest != nil {
		p.dir = p.manifest.Dir()
	} else if dir, err := projectDir(); err == nil {
		p.dir = dir
	}
	p.run, p.runError = runfile.Read(runfile.Path(p.dir))
	if errors.Is(p.runError, fs.ErrNotExist) {
		p.runError = nil
	}
	p.runs = p.run.Alive()
	p.system = sync.OnceValues(func() (systemLook, error) { return a.lookAtSystem(ctx) })
	p.instances = sync.OnceValues(func() ([]registry.Instance, error) {
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		return fetch[[]registry.Instance](bounded, a, "GET", "/v1/services", nil)
	})
	return p
}

// checks returns what there is to check, what is found out at once first.
func (p *patient) checks() []check {
	return []check{
		{"manifest", p.checkManifest},
		{"working folder", p.checkFolder},
		{"token key", p.checkKey},
		{"earlier runs", p.checkLock},
		{"ports", p.checkPorts},
		{"disk space", p.checkDisk},
		{"open files", p.checkFiles},
		{"go", p.checkGo},
		{"clock", p.checkClock},
		{"admin API", p.checkAdmin},
		{"engine", p.checkEngine},
		{"gateway", p.checkGateway},
		{"rotation", p.checkRotation},
		{"services", p.checkServices},
	}
}

// folder is the working folder, whether it exists or not.
func (p *patient) folder() string { return filepath.Join(p.dir, runfile.Folder) }

// existing returns path, or the nearest folder above it that there is.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || filepath.Dir(path) == path {
			return path
		}
		path = filepath.Dir(path)
	}
}
