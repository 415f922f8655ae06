package main

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/keelson-go/keelson/internal/manifest"
)

// settle is how long the manifest must be left alone before it is read:
// editors write a file in several steps.
const settle = 150 * time.Millisecond

// followManifest puts the gateway's part of the manifest in force whenever the
// file changes. One that can't be used changes nothing.
func followManifest(ctx context.Context, current *manifest.Manifest, out *printer, reload func(*manifest.Manifest) error) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", manifest.Name, err)
	}
	defer func() { _ = watcher.Close() }() // it fails never, says its source
	// The folder, not the file: editors replace files.
	if err := watcher.Add(current.Dir()); err != nil {
		return fmt.Errorf("watch %s: %w", current.Dir(), err)
	}
	pause := time.NewTimer(time.Hour)
	pause.Stop()
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-watcher.Events:
			if filepath.Base(e.Name) == filepath.Base(current.Path) && !e.Has(fsnotify.Chmod) {
				pause.Reset(settle)
			}
		case err := <-watcher.Errors:
			out.say("%s can't be watched any more: %v", manifest.Name, err)
		case <-pause.C:
			current = reread(current, out, reload)
		}
	}
}

func reread(current *manifest.Manifest, out *printer, reload func(*manifest.Manifest) error) *manifest.Manifest {
	next, err := manifest.Load(current.Path)
	if err != nil {
		out.say("%s was changed but can't be used; nothing changes:\n%v", filepath.Base(current.Path), err)
		return current
	}
	if !reflect.DeepEqual(next.Gateway, current.Gateway) {
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
