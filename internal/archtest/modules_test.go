package archtest

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// requirements are the modules a go.mod requires: those it names itself and
// those that are there because another needs them.
type requirements struct {
	direct, indirect map[string]string // version by path
}

var requireLine = regexp.MustCompile(`^\s*(?:require\s+)?([^\s()]+\.[^\s()]+/\S+)\s+(v\S+)(\s*// indirect)?\s*$`)

func readRequirements(t *testing.T, name string) requirements {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	r := requirements{direct: map[string]string{}, indirect: map[string]string{}}
	for line := range strings.SplitSeq(string(b), "\n") {
		if m := requireLine.FindStringSubmatch(line); m != nil {
			if m[3] == "" {
				r.direct[m[1]] = m[2]
			} else {
				r.indirect[m[1]] = m[2]
			}
		}
	}
	if len(r.direct) == 0 {
		t.Fatalf("no requirement found in %s", name)
	}
	return r
}

// all returns direct and indirect requirements together.
func (r requirements) all() map[string]string {
	all := maps.Clone(r.direct)
	maps.Copy(all, r.indirect)
	return all
}

// TestSQLiteHasItsOwnLibc: modernc.org/sqlite is translated for exactly one
// version of modernc.org/libc; what it does with another one is anybody's guess. A
// version raised by some other requirement would go unnoticed.
func TestSQLiteHasItsOwnLibc(t *testing.T) {
	t.Parallel()
	const sqlite, libc = "modernc.org/sqlite", "modernc.org/libc"
	ours := readRequirements(t, filepath.Join(root, "go.mod")).all()
	if ours[sqlite] == "" {
		if ours[libc] != "" {
			t.Errorf("go.mod requires %s without %s", libc, sqlite)
		}
		return
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.GoMod}}", sqlite)
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	theirs := readRequirements(t, strings.TrimSpace(string(out))).all()
	if ours[libc] != theirs[libc] {
		t.Errorf("go.mod has %s %s, but %s %s was made for %s: go get %s@%s", libc, ours[libc], sqlite, ours[sqlite], theirs[libc], libc, theirs[libc])
	}
}

var dependencyRow = regexp.MustCompile("^\\| `([^`]+)` \\| (v[^ |]+) \\|")

// TestDependenciesAreExplained: docs/dependencies.md has a row for every module
// the product or its tests require by name, with the version in use.
func TestDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	required := readRequirements(t, filepath.Join(root, "go.mod"))
	b, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if m := dependencyRow.FindStringSubmatch(line); m != nil {
			explained[m[1]] = m[2]
		}
	}
	for module, version := range required.direct {
		if explained[module] == "" {
			t.Errorf("docs/dependencies.md has no row for %s: say what it is for, why this one, and what came second", module)
		} else if explained[module] != version {
			t.Errorf("docs/dependencies.md has %s %s, go.mod %s", module, explained[module], version)
		}
	}
	for module := range explained {
		if required.all()[module] == "" {
			t.Errorf("docs/dependencies.md explains %s, which go.mod does not require: take its row out", module)
		}
	}
}
