package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

const (
	maxLines     = 400
	maxTestLines = 500
)

// vagueNames say nothing about what a package is for.
var vagueNames = []string{"base", "common", "data", "helper", "helpers", "impl", "manager", "misc", "shared", "util", "utils"}

// skipsAllowed are the files whose tests may be skipped, with the reason.
// None should be: a test that does not run protects nothing.
var skipsAllowed = map[string]string{}

func TestPackageNames(t *testing.T) {
	t.Parallel()
	for path, p := range readModule(t).packages {
		for part := range strings.SplitSeq(path, "/") {
			if slices.Contains(vagueNames, part) {
				t.Errorf("%s: %q says nothing; name the package after what it provides", path, part)
			}
		}
		if slices.Contains(vagueNames, p.name) {
			t.Errorf("%s: the package's name %q says nothing; name it after what it provides", path, p.name)
		}
	}
}

func TestFileLengths(t *testing.T) {
	t.Parallel()
	for _, p := range readModule(t).packages {
		for _, f := range p.files {
			limit := maxLines
			if f.test {
				limit = maxTestLines
			}
			if f.lines > limit {
				t.Errorf("%s has %d lines, more than %d: split it by topic", f.path, f.lines, limit)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	t.Parallel()
	for path, p := range readModule(t).packages {
		if !slices.ContainsFunc(p.files, func(f *file) bool { return !f.test && f.syntax.Doc != nil }) {
			t.Errorf("%s: no file has a package comment: say what the package is for and what its callers may rely on", path)
		}
	}
}

func TestDocComments(t *testing.T) {
	t.Parallel()
	m := readModule(t)
	for _, p := range m.packages {
		if p.name == "main" {
			continue // nobody can import it
		}
		for _, f := range p.files {
			if f.test {
				continue
			}
			for _, name := range undocumented(f.syntax) {
				t.Errorf("%s: %s has no doc comment", m.fset.Position(name.Pos()), name.Name)
			}
		}
	}
}

// undocumented returns the exported names without a comment. A comment on a
// group of constants or variables counts for all in it, as go doc shows it.
func undocumented(f *ast.File) []*ast.Ident {
	var bare []*ast.Ident
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Doc == nil && d.Name.IsExported() && exportedReceiver(d) {
				bare = append(bare, d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) && spec.Name.IsExported() {
						bare = append(bare, spec.Name)
					}
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
							bare = append(bare, name)
						}
					}
				}
			}
		}
	}
	return bare
}

// exportedReceiver reports whether d is a function, or a method of an
// exported type.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	of := d.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.IndexListExpr:
			of = t.X
		case *ast.Ident:
			return t.IsExported()
		default:
			return false
		}
	}
}

// TestTestsDoNotSleepOrSkip: a sleep is too short on a slow machine and too
// long on all others, so wait for what is meant, with a generous deadline. In
// virtual time (testing/synctest) sleeping costs and hides nothing.
func TestTestsDoNotSleepOrSkip(t *testing.T) {
	t.Parallel()
	m := readModule(t)
	for _, p := range m.packages {
		for _, f := range p.files {
			if !f.test {
				continue
			}
			for _, call := range realSleeps(f) {
				t.Errorf("%s: time.Sleep in a test: wait for the event, or use testing/synctest", m.fset.Position(call.Pos()))
			}
			if _, ok := skipsAllowed[f.path]; ok {
				continue
			}
			for _, call := range calls(f.syntax, "Skip", "Skipf", "SkipNow") {
				t.Errorf("%s: a test that is skipped protects nothing: make what it needs, or select it by its build tag", m.fset.Position(call.Pos()))
			}
		}
	}
	for path, reason := range skipsAllowed {
		if reason == "" {
			t.Errorf("skipsAllowed[%q] gives no reason", path)
		}
	}
}

// realSleeps returns the calls of time.Sleep in f, none if f works in virtual
// time.
func realSleeps(f *file) []*ast.CallExpr {
	if slices.Contains(f.imports, "testing/synctest") {
		return nil
	}
	return slices.DeleteFunc(calls(f.syntax, "Sleep"), func(c *ast.CallExpr) bool {
		of, ok := c.Fun.(*ast.SelectorExpr).X.(*ast.Ident)
		return !ok || of.Name != "time"
	})
}

// calls returns the calls of any x.name in f.
func calls(f *ast.File, names ...string) []*ast.CallExpr {
	var found []*ast.CallExpr
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			if s, ok := c.Fun.(*ast.SelectorExpr); ok && slices.Contains(names, s.Sel.Name) {
				found = append(found, c)
			}
		}
		return true
	})
	return found
}

func TestNoUnfinishedWork(t *testing.T) {
	t.Parallel()
	m := readModule(t)
	marks := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:"}
	for _, p := range m.packages {
		for _, f := range p.files {
			for _, group := range f.syntax.Comments {
				for _, mark := range marks {
					if strings.Contains(group.Text(), mark) {
						t.Errorf("%s: %s in a comment: do it, or leave the comment out", m.fset.Position(group.Pos()), mark)
					}
				}
			}
		}
	}
}

// TestRulesCanBeBroken runs the rules on code that breaks them.
func TestRulesCanBeBroken(t *testing.T) {
	t.Parallel()
	m := &module{fset: token.NewFileSet(), packages: map[string]*pkg{}}
	if err := m.add("broken/broken.go", "testdata/broken.go"); err != nil {
		t.Fatal(err)
	}
	f := m.packages["broken"].files[0]
	var names []string
	for _, n := range undocumented(f.syntax) {
		names = append(names, n.Name)
	}
	if want := []string{"Bare", "BareMethod", "BareType", "InGroup", "BareConst"}; !slices.Equal(names, want) {
		t.Errorf("undocumented names %q, want %q", names, want)
	}
	if got := len(realSleeps(f)); got != 1 {
		t.Errorf("%d real sleeps found, want 1", got)
	}
	if got := len(calls(f.syntax, "Skip", "Skipf", "SkipNow")); got != 1 {
		t.Errorf("%d skips found, want 1", got)
	}
}
