package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// sources are the folders that programs are made of: those of the packages that
// are edited, not those in the module cache. Paths are absolute.
type sources struct {
	folders map[string]map[*program]use
	embeds  map[string]map[*program]bool // patterns of files embedded from beside a package's source
}

func newSources() *sources {
	return &sources{folders: map[string]map[*program]use{}, embeds: map[string]map[*program]bool{}}
}

// use is what in a folder matters to a program.
type use uint8

const (
	asPackage  use = 1 << iota // source files
	asEmbedded                 // every file
	asModule                   // go.mod and its like
	asAncestor                 // only that the next folder on the way down is there
	asNew                      // not known yet: source files
)

// listed is what the go command tells of a package.
type listed struct {
	ImportPath, Dir   string
	Standard, DepOnly bool
	Match             []string // the arguments that mean it
	Deps              []string
	EmbedPatterns     []string // relative to Dir, as are
	EmbedFiles        []string
	Module            *struct {
		Main       bool
		Dir, GoMod string
		Replace    *struct{ Version string }
	}
}

// local reports whether the package is one that is edited: in a module of the
// workspace, in one that a replacement by a folder names, or in none.
func (l *listed) local() bool {
	return !l.Standard && l.Dir != "" && (l.Module == nil || l.Module.Main || l.Module.Replace != nil && l.Module.Replace.Version == "")
}

// listSources asks the go command what the programs are made of. Packages that
// are missing or broken are left out.
func listSources(ctx context.Context, dir string, programs []*program) (*sources, error) {
	args := []string{"list", "-e", "-deps", "-json=ImportPath,Dir,Standard,DepOnly,Match,Deps,EmbedPatterns,EmbedFiles,Module"}
	for _, p := range programs {
		args = append(args, p.pkg)
	}
	var out bytes.Buffer
	if said, err := goCommand(ctx, dir, nil, &out, args...); err != nil {
		return nil, fmt.Errorf("list what the packages are made of: %w: %s", err, strings.TrimSpace(said))
	}
	packages := map[string]*listed{}
	for d := json.NewDecoder(&out); ; {
		var l listed
		err := d.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list what the packages are made of: %w", err)
		}
		packages[l.ImportPath] = &l
	}
	var env struct{ GOWORK string }
	out.Reset()
	if said, err := goCommand(ctx, dir, nil, &out, "env", "-json", "GOWORK"); err != nil {
		return nil, fmt.Errorf("look for a go.work: %w: %s", err, strings.TrimSpace(said))
	}
	if err := json.Unmarshal(out.Bytes(), &env); err != nil {
		return nil, fmt.Errorf("look for a go.work: %w", err)
	}
	found := newSources()
	for _, p := range programs {
		if filepath.IsAbs(env.GOWORK) { // else there is none, or it is off
			found.add(filepath.Dir(env.GOWORK), p, asModule)
		}
		for _, root := range packages {
			if root.DepOnly || !slices.Contains(root.Match, p.pkg) {
				continue
			}
			for _, path := range append(root.Deps, root.ImportPath) {
				if l := packages[path]; l != nil && l.local() {
					found.addPackage(l, p)
				}
			}
		}
	}
	return found, nil
}

func (s *sources) add(dir string, p *program, u use) {
	if s.folders[dir] == nil {
		s.folders[dir] = map[*program]use{}
	}
	s.folders[dir][p] |= u
}

func (s *sources) addPackage(l *listed, p *program) {
	s.add(l.Dir, p, asPackage)
	for _, file := range l.EmbedFiles {
		for dir := filepath.Dir(file); dir != "."; dir = filepath.Dir(dir) {
			s.add(filepath.Join(l.Dir, dir), p, asEmbedded)
		}
	}
	for _, pattern := range l.EmbedPatterns {
		path := filepath.Join(l.Dir, strings.TrimPrefix(pattern, "all:"))
		if s.embeds[path] == nil {
			s.embeds[path] = map[*program]bool{}
		}
		s.embeds[path][p] = true
	}
	if l.Module == nil || l.Module.Dir == "" {
		return
	}
	s.add(l.Module.Dir, p, asModule)
	if l.Module.GoMod != "" {
		s.add(filepath.Dir(l.Module.GoMod), p, asModule)
	}
	// A folder that is removed and comes back is noticed from above.
	for dir := l.Dir; dir != l.Module.Dir && within(dir, l.Module.Dir); {
		dir = filepath.Dir(dir)
		s.add(dir, p, asAncestor)
	}
}

// addEmbedded adds the folders in an embedded one: files may come into them that
// are embedded then.
func (s *sources) addEmbedded(dir string, p *program) {
	left := maxNewFolders
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil //nolint:nilerr // what can't be read can't be embedded
		}
		if left--; left < 0 {
			return fs.SkipAll
		}
		s.add(path, p, asEmbedded)
		return nil
	})
}

// within reports whether dir is parent, or below it.
func within(dir, parent string) bool {
	rel, err := filepath.Rel(parent, dir)
	return err == nil && filepath.IsLocal(rel)
}

// join adds what other has.
func (s *sources) join(other *sources) {
	for dir, uses := range other.folders {
		for p, u := range uses {
			s.add(dir, p, u)
		}
	}
	for pattern, programs := range other.embeds {
		if s.embeds[pattern] == nil {
			s.embeds[pattern] = map[*program]bool{}
		}
		maps.Copy(s.embeds[pattern], programs)
	}
}

// packages returns how many folders of packages there are.
func (s *sources) packages() int {
	n := 0
	for _, uses := range s.folders {
		if slices.ContainsFunc(slices.Collect(maps.Values(uses)), func(u use) bool { return u&asPackage != 0 }) {
			n++
		}
	}
	return n
}

// affected returns the programs that may be others when the file or folder at
// path has changed.
func (s *sources) affected(path string) []*program {
	dir, name := filepath.Split(path)
	if temporary(name) {
		return nil
	}
	found := map[*program]bool{}
	// The folder itself has come, gone or been renamed.
	for p, u := range s.folders[path] {
		if u&(asPackage|asEmbedded|asAncestor|asNew) != 0 {
			found[p] = true
		}
	}
	for p, u := range s.folders[filepath.Clean(dir)] {
		if u&asEmbedded != 0 || u&(asPackage|asNew) != 0 && sourceFile(name) || u&asModule != 0 && slices.Contains(moduleFiles, name) {
			found[p] = true
		}
	}
	for pattern, programs := range s.embeds {
		if match, err := filepath.Match(pattern, path); match && err == nil {
			maps.Copy(found, programs)
		}
	}
	return slices.Collect(maps.Keys(found))
}

var moduleFiles = []string{"go.mod", "go.sum", "go.work", "go.work.sum"}

// sourceExtensions are those of the files that the go command compiles; see
// `go help packages`.
var sourceExtensions = []string{
	".go", ".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp", ".hxx", ".m", ".f", ".F", ".for", ".f90", ".s", ".S", ".sx",
	".swig", ".swigcxx", ".syso",
}

// sourceFile reports whether a file of this name can be part of a program.
func sourceFile(name string) bool {
	return !strings.HasPrefix(name, "_") && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, "_test.go") &&
		slices.Contains(sourceExtensions, filepath.Ext(name))
}

// temporary reports whether editors and the like make files of this name, which
// they remove or rename soon.
func temporary(name string) bool {
	return strings.HasSuffix(name, "~") || strings.HasPrefix(name, ".#") || strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#") ||
		name == "4913" || slices.Contains([]string{".swp", ".swo", ".swx", ".tmp", ".bak", ".orig"}, filepath.Ext(name)) ||
		strings.HasSuffix(name, "___jb_tmp___") || strings.HasSuffix(name, "___jb_old___") || strings.HasPrefix(name, ".goutputstream-") ||
		strings.HasSuffix(name, "-go-tmp-umask")
}

// sourceFolder reports whether a folder of this name can have packages in it.
func sourceFolder(name string) bool {
	return !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "_") && name != "testdata" && name != "node_modules"
}
