package postgrestest

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrMissing says that PostgreSQL is not installed, or not where it is looked for.
var ErrMissing = errors.New("PostgreSQL is missing: no initdb and postgres in PATH or the usual places; install it (Debian: apt install postgresql, macOS: brew install postgresql)")

// places are where packages put PostgreSQL's programs when not in PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin", // Debian
	"/usr/pgsql-*/bin",          // Red Hat, from PostgreSQL
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin", // Homebrew on Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/local/pgsql/bin", // built from source
}

// programs returns the folder of initdb and postgres: the one in PATH, else the
// newest among the patterns.
func programs(patterns []string) (string, error) {
	if initdb, err := exec.LookPath("initdb"); err == nil {
		// Debian's own are not in PATH, but some link them there one by one.
		if real, err := filepath.EvalSymlinks(initdb); err == nil && complete(filepath.Dir(real)) {
			return filepath.Dir(real), nil
		}
	}
	var found []string
	for _, pattern := range patterns {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		found = append(found, slices.DeleteFunc(dirs, func(dir string) bool { return !complete(dir) })...)
	}
	if len(found) == 0 {
		return "", ErrMissing
	}
	return slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) }), nil
}

// complete reports whether dir has both programs.
func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

// version returns the last number in the path of a folder of programs, such as
// 15 in /usr/lib/postgresql/15/bin and in /usr/pgsql-15/bin, or 0.
func version(dir string) float64 {
	numbers := strings.FieldsFunc(dir, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	for _, n := range slices.Backward(numbers) {
		if v, err := strconv.ParseFloat(n, 64); err == nil {
			return v
		}
	}
	return 0
}
