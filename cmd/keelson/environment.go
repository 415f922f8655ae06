package main

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keelson-go/keelson/internal/dotenv"
	"github.com/keelson-go/keelson/internal/manifest"
)

// readVariables reads the project's .env files: what they say, as key=value, and
// a warning for each variable that `up` sets itself.
func readVariables(dir string) (env []string, warnings []string, err error) {
	all, err := dotenv.LoadFolder(dir)
	if problems, ok := errors.AsType[dotenv.Errors](err); ok {
		return nil, nil, &failure{code: exitUsage, message: filepath.Base(problems[0].File) + " can't be used", detail: problems.Error()}
	}
	if err != nil {
		return nil, nil, &failure{code: exitUsage, message: err.Error()}
	}
	for _, v := range all {
		if slices.Contains(manifest.OwnVariables(), v.Name) {
			warnings = append(warnings, v.String()+" is not used: keelson sets this variable itself")
			continue
		}
		env = append(env, v.Name+"="+v.Value)
	}
	return env, warnings, nil
}

// environ is this process's environment without what `up` decides itself, and
// what is meant for the keelson command alone.
func environ() []string {
	var kept []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		meant := !strings.HasPrefix(name, "KEELSON_") || name == "KEELSON_DATABASE_URL" || name == "KEELSON_ZONE"
		if name != "PORT" && meant {
			kept = append(kept, e)
		}
	}
	return kept
}

// environment is what an instance's process is started with. Of a name that
// stands twice the last one counts.
func (f *fleet) environment(m *member, engineURL, credentials string) []string {
	// Our proposals, before everything that may say otherwise.
	env := []string{
		"KEELSON_LOG_FORMAT=text", "KEELSON_LOG_LEVEL=" + f.logLevel,
		"KEELSON_DATABASE_URL=" + f.work.DatabaseURL(m.service.Name),
	}
	env = slices.Concat(env, *f.variables.Load(), environ())
	for _, k := range slices.Sorted(maps.Keys(m.service.Env)) {
		env = append(env, k+"="+m.service.Env[k])
	}
	// Facts.
	return append(env,
		"PORT="+strconv.Itoa(m.port), "KEELSON_SERVICE="+m.service.Name, "KEELSON_INSTANCE="+m.instance,
		"KEELSON_ENGINE_URL="+engineURL, "KEELSON_ENGINE_CREDENTIALS="+credentials, "KEELSON_ADMIN_URL="+f.platform.AdminURL())
}

// rereadVariables makes what the .env files say now count from the next start of
// each process, and reports whether that is anything new. Files that can't be
// used change nothing.
func (f *fleet) rereadVariables() (changed bool, err error) {
	env, warnings, err := readVariables(f.manifest.Dir())
	if err != nil {
		return false, err
	}
	if slices.Equal(env, *f.variables.Swap(&env)) {
		return false, nil
	}
	for _, w := range warnings {
		f.out.warn("%s", w)
	}
	return true, nil
}

// variablesChanged is called when a .env file was touched.
func (f *fleet) variablesChanged() {
	changed, err := f.rereadVariables()
	switch {
	case err != nil:
		text := err.Error() + "; what was read before counts"
		if detail := detailOf(err); detail != "" {
			text += ":\n" + detail
		}
		f.out.say("%s", text)
	case changed:
		f.out.say("the changed .env counts for each service from its next start: `keelson restart --all`")
	}
}

func detailOf(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.detail
	}
	return ""
}
