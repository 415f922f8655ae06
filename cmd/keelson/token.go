package main

import (
	"cmp"
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
			"  keelson token --subject alice --scope users:read --scope users:write --ttl 8h\n" +
			"  KEELSON_TOKEN=$(keelson token --scope keelson:admin) keelson status --url http://10.0.0.5:3100",
		Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			if req.TTL < time.Second { // to Mint, 0 means its default
				return &failure{code: exitUsage, message: fmt.Sprintf("--ttl is %v", req.TTL), hint: "give a time of 1s or more, such as 8h"}
			}
			dir, err := projectDir()
			if err != nil {
				return err
			}
			key, err := auth.LoadOrCreateDevKey(filepath.Join(dir, runfile.Folder, "dev.key"))
			if err != nil {
				return err
			}
			began := time.Now()
			token, err := key.Mint(req)
			if err != nil {
				return &failure{code: exitUsage, message: err.Error(), hint: "see keelson token --help"}
			}
			if a.output == "json" {
				// What is empty is filled in as Mint does.
				return writeJSON(a.stdout, mintedToken{
					Token: token, Subject: cmp.Or(req.Subject, "dev"), Scopes: append([]string{}, req.Scopes...),
					Expires: began.Add(req.TTL).UTC().Truncate(time.Second),
				})
			}
			_, err = fmt.Fprintln(a.stdout, token)
			return err
		},
	}
	cmd.Flags().StringVar(&req.Subject, "subject", "dev", "who the token speaks for")
	cmd.Flags().StringArrayVar(&req.Scopes, "scope", nil, "what it allows; repeat for several")
	cmd.Flags().DurationVar(&req.TTL, "ttl", time.Hour, "how long it is good for")
	a.outputFlag(cmd, "text", "json")
	return cmd
}

// mintedToken is a token with what is in it.
type mintedToken struct {
	Token   string    `json:"token"`
	Subject string    `json:"subject"`
	Scopes  []string  `json:"scopes"`
	Expires time.Time `json:"expires"`
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
