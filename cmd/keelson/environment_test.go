package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/platform"
)

func TestEnvironment(t *testing.T) {
	t.Setenv("FROM_PROCESS", "process")
	t.Setenv("FROM_MANIFEST", "process")
	t.Setenv("KEELSON_DATABASE_URL", "")
	os.Unsetenv("KEELSON_DATABASE_URL")
	t.Setenv("KEELSON_TOKEN", "process")
	t.Setenv("KEELSON_INSTANCE", "process")
	t.Setenv("PORT", "1")
	m := project(t, "version: 1\nservices:\n  users: {command: [x], env: {FROM_MANIFEST: manifest}}\n  pay: {command: [x], env: {KEELSON_DATABASE_URL: manifest}}\n")
	write := func(file, text string) {
		t.Helper()
		writeFiles(t, m.Dir(), map[string]string{file: text})
	}
	write(".env", "FROM_ENV=env\nFROM_LOCAL=env\nFROM_PROCESS=env\nFROM_MANIFEST=env\nKEELSON_DATABASE_URL=env\nPORT=2\nKEELSON_INSTANCE=x\nKEELSON_LOG_LEVEL=debug\n")
	write(".env.local", "FROM_LOCAL=local\nFROM_PROCESS=local\n")
	p, err := platform.Listen(t.Context(), platform.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w, err := openWorkspace(m.Dir(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	out, _, stderr := testPrinter(t)
	f, err := newFleet(m, w, out, "warn")
	if err != nil {
		t.Fatal(err)
	}
	defer f.detach()
	if err := f.attach(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	got := func(i int, name string) string {
		value := "unset"
		for _, e := range f.environment(f.members[i], "nats://x", "secret") {
			if k, v, _ := strings.Cut(e, "="); k == name {
				value = v // the last one counts
			}
		}
		return value
	}
	if v := got(0, "KEELSON_DATABASE_URL"); v != w.DatabaseURL("users") {
		t.Errorf("KEELSON_DATABASE_URL is %q without a file", v)
	}
	if changed, err := f.rereadVariables(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	for name, want := range map[string]string{
		"FROM_ENV": "env", "FROM_LOCAL": "local", "FROM_PROCESS": "process", "FROM_MANIFEST": "manifest",
		"KEELSON_TOKEN": "unset", "KEELSON_DATABASE_URL": "env", "KEELSON_INSTANCE": "users-1", "KEELSON_LOG_LEVEL": "debug", "KEELSON_ENGINE_URL": "nats://x",
	} {
		if v := got(0, name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	t.Setenv("KEELSON_DATABASE_URL", "process")
	if v := got(0, "KEELSON_DATABASE_URL"); v != "process" {
		t.Errorf("the environment's KEELSON_DATABASE_URL is %q", v)
	}
	if v := got(1, "KEELSON_DATABASE_URL"); v != "manifest" {
		t.Errorf("the manifest's KEELSON_DATABASE_URL is %q", v)
	}
	if v := got(0, "PORT"); v == "1" || v == "2" {
		t.Errorf("PORT is %q, not the one that up has chosen", v)
	}
	eventually(t, "the warnings", func() bool {
		return strings.Contains(stderr.String(), "warning: PORT (") && strings.Contains(stderr.String(), "KEELSON_INSTANCE (")
	})
	if changed, err := f.rereadVariables(); changed || err != nil {
		t.Errorf("nothing new is %t, %v", changed, err)
	}
	write(".env", "FROM_ENV=\"hunter2\n")
	f.variablesChanged()
	eventually(t, "the complaint", func() bool { return strings.Contains(stderr.String(), ".env:1:10: this quote is never closed") })
	if v := got(0, "FROM_ENV"); v != "env" || strings.Contains(stderr.String(), "hunter2") {
		t.Errorf("a bad file: FROM_ENV is %q", v)
	}
	// One that can't even be read: there is nothing to show of it.
	if err := os.Remove(filepath.Join(m.Dir(), ".env")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(".env", filepath.Join(m.Dir(), ".env")); err != nil {
		t.Fatal(err)
	}
	f.variablesChanged()
	eventually(t, "the other complaint", func() bool {
		return strings.Contains(stderr.String(), "too many levels of symbolic links; what was read before counts\n")
	})
	if err := os.Remove(filepath.Join(m.Dir(), ".env")); err != nil {
		t.Fatal(err)
	}
	write(".env", "FROM_ENV=new\n")
	f.variablesChanged()
	eventually(t, "the hint", func() bool { return strings.Contains(stderr.String(), "keelson restart --all") })
}

func TestBadVariablesAreAUsageFailure(t *testing.T) {
	t.Parallel()
	m := project(t, "version: 1\n")
	writeFiles(t, m.Dir(), map[string]string{".env": "A=1\nhunter2\n"})
	got := keelson(t, nil, "up", "--file", m.Path)
	if got.code != exitUsage || !strings.Contains(got.stderr, ".env:2:1: ") || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("%+v", got)
	}
	_, _, err := readVariables(m.Dir())
	if f, ok := errors.AsType[*failure](err); !ok || !slices.Contains([]string{".env can't be used"}, f.message) {
		t.Errorf("error %v", err)
	}
}
