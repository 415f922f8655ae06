package postgrestest

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account returns the user to run the server as, nil for the one we are.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as: add one, or run the tests as another user")
}

// folder makes a private folder that the account can reach.
func folder(as *syscall.Credential) (string, error) {
	if as == nil {
		return os.MkdirTemp("", "postgrestest-")
	}
	// The temporary folder may be root's own, as t.TempDir is.
	var refused error
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if err := passable(parent); err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		dir, err := os.MkdirTemp(parent, "postgrestest-")
		if err != nil {
			refused = errors.Join(refused, err)
			continue
		}
		if err := os.Chown(dir, int(as.Uid), int(as.Gid)); err != nil {
			return "", errors.Join(err, os.Remove(dir))
		}
		return dir, nil
	}
	return "", fmt.Errorf("no folder for the server: %w", refused)
}

// passable says why not everybody can go through dir and all above it.
func passable(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("%s is closed to other users", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
