package archtest

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	modulePath = "github.com/keelson-go/keelson"
	root       = "../.." // of the module, seen from a test's working folder
)

// module is the source of the whole module, without modules inside it such as
// bench and tools.
type module struct {
	fset     *token.FileSet
	packages map[string]*pkg // by path in the module
}

type pkg struct {
	name  string
	files []*file
}

type file struct {
	path    string // in the module
	test    bool
	lines   int
	imports []string
	syntax  *ast.File
}

// source parses everything in this process: the go command would make the
// test's result depend on files that the test cache knows nothing about.
var source = sync.OnceValues(func() (*module, error) {
	m := &module{fset: token.NewFileSet(), packages: map[string]*pkg{}}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return skip(rel, name, d.Name())
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		return m.add(filepath.ToSlash(rel), name)
	})
	return m, err
})

func skip(rel, name, base string) error {
	if rel == "." {
		return nil
	}
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func (m *module) add(rel, name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	syntax, err := parser.ParseFile(m.fset, rel, b, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f := &file{path: rel, test: strings.HasSuffix(rel, "_test.go"), lines: bytes.Count(b, []byte("\n")), syntax: syntax}
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		f.imports = append(f.imports, imported)
	}
	dir := path.Dir(rel)
	p := m.packages[dir]
	if p == nil {
		p = &pkg{name: strings.TrimSuffix(syntax.Name.Name, "_test")}
		m.packages[dir] = p
	}
	p.files = append(p.files, f)
	return nil
}

func readModule(t *testing.T) *module {
	t.Helper()
	m, err := source()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.packages) < 5 {
		t.Fatalf("only %d packages found below %s: the tests would look at nothing", len(m.packages), root)
	}
	return m
}
