package workspace_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/internal/workspace"
)

func Example() {
	project, err := os.MkdirTemp("", "project-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(project)
	w, err := workspace.Open(project, "shop all", false)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = w.Note(func(f *runfile.File) { f.Gateway = "http://127.0.0.1:3000" })
	if err != nil {
		fmt.Println(err)
	}
	f, err := runfile.Read(filepath.Join(w.Dir(), runfile.Name))
	fmt.Println(f.Gateway, f.Alive(), err)
	_, err = workspace.Open(project, "shop all", false)
	fmt.Println(err != nil)
	fmt.Println(w.Close())
	// Output:
	// http://127.0.0.1:3000 true <nil>
	// true
	// <nil>
}
