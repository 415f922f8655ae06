//go:build linux

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// The programs under test, built once, and this program, which plays services.
var (
	keelson, shop, self string
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		if play := roles[os.Args[1]]; play != nil {
			play()
			return
		}
	}
	dir, err := build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}))
}

// root is the module's folder.
const root = "../.."

func build() (dir string, err error) {
	if self, err = os.Executable(); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("", "keelson-e2e-"); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "./cmd/keelson", "./examples/shop")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%v\n%s", err, out)
	}
	keelson, shop = filepath.Join(dir, "keelson"), filepath.Join(dir, "shop")
	return dir, nil
}
