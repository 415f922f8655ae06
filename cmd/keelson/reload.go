package main

import (
	"context"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/keelson-go/keelson/internal/manifest"
)

// settle is how long a file must be left alone before it is read:
// editors write a file in several steps.
const settle = 150 * time.Millisecond

// followManifest puts the gateway's part of the manifest in force whenever the
// file changes. One that can't be used changes nothing.
func followManifest(ctx context.Context, current *manifest.Manifest, out *printer, reload func(*manifest.Manifest) error) {
	followFiles(ctx, current.Dir(), []string{filepath.Base(current.Path)}, out, func() {
		current = reread(current, out, reload)
	})
}

// followFiles calls changed when files of these names in a folder have changed,
// until ctx ends, and once at the beginning.
func followFiles(ctx context.Context, dir string, names []string, out *printer, changed func()) {
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer func() { _ = watcher.Close() }() // it fails never, says its source
		err = watcher.Add(dir)                 // not the files: editors replace them
	}
	if err != nil {
		// A system that has no watches left must not stop a fleet.
		out.warn("%s can't be watched, and changes need a restart: %v", strings.Join(names, ", "), err)
		<-ctx.Done()
		return
	}
	pause := time.NewTimer(settle) // they may have changed since they were read first
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-watcher.Events:
			if slices.Contains(names, filepath.Base(e.Name)) && !e.Has(fsnotify.Chmod) {
				pause.Reset(settle)
			}
		case <-watcher.Errors: //nolint:errcheck // an overflow, whatever it says
			pause.Reset(settle) // changes may have been missed: look
		case <-pause.C:
			changed()
		}
	}
}

// reloadable is the part of the gateway that changes without a restart.
func reloadable(m *manifest.Manifest) manifest.Gateway {
	g := m.Gateway
	g.Listen, g.Auth = "", manifest.Auth{}
	return g
}

func reread(current *manifest.Manifest, out *printer, reload func(*manifest.Manifest) error) *manifest.Manifest {
	next, err := manifest.Load(current.Path)
	if err != nil {
		out.say("%s was changed but can't be used; nothing changes:\n%v", filepath.Base(current.Path), err)
		return current
	}
	if !reflect.DeepEqual(reloadable(next), reloadable(current)) {
		if err := reload(next); err != nil {
			out.say("%s was changed but can't be used; nothing changes:\n%v", filepath.Base(current.Path), err)
			return current
		}
		out.say("the gateway's routes and policies are those of the changed %s now", filepath.Base(current.Path))
	}
	if !reflect.DeepEqual(next.Services, current.Services) || next.Engine != current.Engine || next.Admin != current.Admin ||
		next.Gateway.Listen != current.Gateway.Listen || !reflect.DeepEqual(next.Gateway.Auth, current.Gateway.Auth) {
		out.say("services, addresses, keys and the engine change when `keelson up` is started again")
	}
	return next
}
