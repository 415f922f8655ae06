package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeFiles writes files below a folder and returns its real path.
func writeFiles(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// workspaceOfModules has a module, one that replaces another, and one of a go.work.
var workspaceOfModules = map[string]string{
	"go.work":                          "go 1.26.0\n\nuse ./shop\nuse ./shared\n",
	"shop/go.mod":                      "module example.test/shop\n\ngo 1.26.0\n\nrequire example.test/fork v0.0.0\n\nreplace example.test/fork => ../fork\n",
	"shop/cmd/a/main.go":               "package main\n\nimport (\n\t_ \"embed\"\n\t\"example.test/fork\"\n\t\"example.test/shared/deep\"\n\t\"example.test/shop/internal/x\"\n)\n\n//go:embed *.sql\nvar sql string\n\nfunc main() { println(sql, fork.F, deep.D, x.X) }\n",
	"shop/cmd/a/schema.sql":            "select 1",
	"shop/cmd/b/main.go":               "package main\n\nfunc main() {}\n",
	"shop/internal/x/x.go":             "package x\n\nimport \"embed\"\n\n//go:embed all:static\nvar files embed.FS\n\nvar X = 1\n",
	"shop/internal/x/static/css/a.css": "a{}",
	"shop/internal/unused/u.go":        "package unused\n",
	"shared/go.mod":                    "module example.test/shared\n\ngo 1.26.0\n",
	"shared/deep/d.go":                 "package deep\n\nconst D = 1\n",
	"fork/go.mod":                      "module example.test/fork\n\ngo 1.26.0\n",
	"fork/f.go":                        "package fork\n\nconst F = 1\n",
}

func TestSources(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, t.TempDir(), workspaceOfModules)
	a, b := newProgram("./cmd/a", "", ""), newProgram("example.test/shop/cmd/b", "", "")
	s, err := listSources(t.Context(), filepath.Join(dir, "shop"), []*program{a, b})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		path string
		want string // the programs it affects
	}{
		{"shop/cmd/a/main.go", "a"},
		{"shop/cmd/a/other.s", "a"},
		{"shop/cmd/a/schema.sql", "a"}, {"shop/cmd/a/new.sql", "a"},
		{"shop/cmd/b/main.go", "b"},
		{"shop/internal/x/x.go", "a"}, {"shop/internal/x/y.go", "a"},
		{"shop/internal/x/static/css/a.css", "a"}, {"shop/internal/x/static/new.txt", "a"},
		{"shared/deep/d.go", "a"},
		{"fork/f.go", "a"},
		{"go.work", "a b"}, {"shop/go.mod", "a b"}, {"shop/go.sum", "a b"}, {"shared/go.mod", "a"}, {"fork/go.mod", "a"},
		{"shop/internal", "a"}, {"shop/internal/x", "a"}, {"shop/internal/x/static", "a"}, {"shop/cmd", "a b"}, {"shared/deep", "a"}, // folders that come and go

		{"shop/cmd/a/main_test.go", ""}, {"shop/cmd/a/.main.go.swp", ""}, {"shop/cmd/a/main.go~", ""}, {"shop/cmd/a/4913", ""},
		{"shop/cmd/a/#main.go#", ""}, {"shop/cmd/a/.#main.go", ""}, {"shop/cmd/a/_x.go", ""}, {"shop/cmd/a/.x.go", ""},
		{"shop/cmd/a/README.md", ""}, {"shop/cmd/a/users.db", ""}, {"shop/cmd/a/a.go.tmp", ""},
		{"shop/internal/unused/u.go", ""}, {"shop/internal/z.go", ""}, {"shop/x.go", ""}, {"shop/.keelson", ""}, {"shop/keelson.yaml", ""},
	}
	for _, tt := range tests {
		var got []string
		for _, p := range s.affected(filepath.Join(dir, tt.path)) {
			got = append(got, filepath.Base(p.pkg))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s affects %q, want %q", tt.path, got, tt.want)
		}
	}
	if n := s.packages(); n != 5 {
		t.Errorf("%d folders of packages, want 5: %v", n, slices.Sorted(maps.Keys(s.folders)))
	}
	for folder := range s.folders {
		if !within(folder, dir) {
			t.Errorf("a folder of somebody else is watched: %s", folder)
		}
	}
}

// A package that is broken or gone hides nothing of the others.
func TestSourcesOfWhatIsBroken(t *testing.T) {
	t.Parallel()
	dir := writeFiles(t, t.TempDir(), workspaceOfModules)
	writeFiles(t, dir, map[string]string{"shop/internal/x/x.go": "package x\n\nimport \"example.test/shop/missing\"\n\nfunc {"})
	if err := os.RemoveAll(filepath.Join(dir, "shared/deep")); err != nil {
		t.Fatal(err)
	}
	p := newProgram("./cmd/a", "", "")
	s, err := listSources(t.Context(), filepath.Join(dir, "shop"), []*program{p})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"shop/cmd/a/main.go", "shop/internal/x/x.go", "fork/f.go"} {
		if len(s.affected(filepath.Join(dir, path))) != 1 {
			t.Errorf("%s is not watched", path)
		}
	}
}
