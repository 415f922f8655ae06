package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/runfile"
)

// defaultAdmin is where the admin API is unless something says otherwise.
const defaultAdmin = "http://127.0.0.1:3100"

// mintedTTL is how long a token is good that a command makes for itself.
const mintedTTL = 15 * time.Minute

// systemFlags gives cmd, and the commands below it, the flags that say which
// running system is meant.
func (a *app) systemFlags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.url, "url", "", "admin API of the system (default: KEELSON_URL, the running system of this folder, "+defaultAdmin+")")
	flags.StringVar(&a.token, "token", "", "token for an admin API off loopback (better: KEELSON_TOKEN, which no process list shows)")
	for _, name := range []string{"url", "token"} {
		// It can't fail: the flag was just added.
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// admin finds the running system: --url, KEELSON_URL, the run file here or
// above, port 3100, in that order. source says which it was, for messages.
func (a *app) admin() (base, source string, err error) {
	check := func(s, source string) (string, string, error) {
		u, err := url.Parse(s)
		switch {
		case strings.Contains(s, "@"): // not repeated, URL or not: there may be a password in it
			return "", "", &failure{code: exitUsage, message: source + " has a user or a password in it", hint: "take it out, and give a token by KEELSON_TOKEN"}
		case strings.ContainsAny(s, "?#"): // nor this: a token is often put there
			return "", "", &failure{code: exitUsage, message: source + " has a query or a fragment, which a base URL has not", hint: "give one such as " + defaultAdmin}
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return "", "", &failure{code: exitUsage, message: fmt.Sprintf("%s is %q, which is no URL", source, s), hint: "give one such as " + defaultAdmin}
		}
		return strings.TrimSuffix(s, "/"), source, nil
	}
	if a.url != "" {
		return check(a.url, "--url")
	}
	if s := a.env("KEELSON_URL"); s != "" {
		return check(s, "KEELSON_URL")
	}
	path, err := runfile.Find(".")
	if errors.Is(err, fs.ErrNotExist) {
		return defaultAdmin, "the default", nil
	}
	if err != nil {
		return "", "", err
	}
	f, err := runfile.Read(path)
	if err != nil {
		return "", "", err
	}
	if !f.Alive() || f.Admin == "" {
		return defaultAdmin, "the default", nil
	}
	return f.Admin, path, nil
}

// bearer returns the token for the admin API at base: --token, KEELSON_TOKEN,
// or, for a system off loopback that this project's run file names, one made
// with the project's key. An address that was merely given gets no such one.
func (a *app) bearer(base, source string) (string, error) {
	for _, from := range []struct{ name, token string }{{"--token", a.token}, {"KEELSON_TOKEN", a.env("KEELSON_TOKEN")}} {
		token := strings.TrimSpace(from.token)
		if token == "" {
			continue
		}
		if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return "", &failure{code: exitUsage, message: from.name + " is no token", hint: "give one such as `keelson token --scope " + console.ScopeAdmin + "` prints"}
		}
		return token, nil
	}
	if filepath.Base(source) != runfile.Name || onLoopback(base) {
		return "", nil
	}
	path := filepath.Join(filepath.Dir(source), "dev.key")
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil // none is made here: the system could not know it
	}
	key, err := auth.LoadOrCreateDevKey(path)
	if err != nil {
		return "", err
	}
	return key.Mint(auth.TokenRequest{Subject: "keelson-cli", Scopes: []string{console.ScopeAdmin}, TTL: mintedTTL})
}

// onLoopback reports whether a base URL is on this machine's loopback.
func onLoopback(base string) bool {
	u, err := url.Parse(base)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// askable reports whether the gateway of the system whose admin API is at base can
// be asked from here: the loopback of another machine is not ours. What a run file
// names is on this one.
func askable(gateway, base, source string) bool {
	return !onLoopback(gateway) || onLoopback(base) || filepath.Base(source) == runfile.Name
}
