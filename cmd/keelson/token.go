package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/runfile"
)

func (a *app) tokenCommand() *cobra.Command {
	var req auth.TokenRequest
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Print a token for the development gateway",
		Long: "Print a JSON Web Token that the gateway of `keelson up` accepts, and nothing else.\n" +
			"It is signed with .keelson/dev.key beside the manifest, which is made if there is none.",
		Example: "  curl -H \"Authorization: Bearer $(keelson token)\" http://127.0.0.1:3000/api/users\n" +
			"  keelson token --subject alice --scope users:read --scope users:write --ttl 8h",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			dir, err := projectDir()
			if err != nil {
				return err
			}
			key, err := auth.LoadOrCreateDevKey(filepath.Join(dir, runfile.Folder, "dev.key"))
			if err != nil {
				return err
			}
			token, err := key.Mint(req)
			if err != nil {
				return &failure{code: exitUsage, message: err.Error(), hint: "see keelson token --help"}
			}
			_, err = fmt.Fprintln(a.stdout, token)
			return err
		},
	}
	cmd.Flags().StringVar(&req.Subject, "subject", "dev", "who the token speaks for")
	cmd.Flags().StringArrayVar(&req.Scopes, "scope", nil, "what it allows; repeat for several")
	cmd.Flags().DurationVar(&req.TTL, "ttl", time.Hour, "how long it is good for")
	return cmd
}

// projectDir is the folder that a running `keelson up` is in, here or above, else
// that of the manifest, or else this folder.
func projectDir() (string, error) {
	path, err := runfile.Find(".")
	if err == nil {
		return filepath.Dir(filepath.Dir(path)), nil
	}
	path, err = manifest.Find(".")
	if errors.Is(err, manifest.ErrNotFound) {
		return ".", nil
	}
	return filepath.Dir(path), err
}
