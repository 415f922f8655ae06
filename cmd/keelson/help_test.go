package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// commands calls f with each command that does something.
func commands(f func(*cobra.Command)) {
	a := &app{stdout: io.Discard, stderr: io.Discard, env: func(string) string { return "" }}
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Runnable() && !slices.Contains([]string{"help", "completion"}, c.Name()) {
			f(c)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.root())
}

// Every command has an example, which can be run as it is written: its commands
// and flags exist.
func TestExamples(t *testing.T) {
	t.Parallel()
	commands(func(c *cobra.Command) {
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			for _, part := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune("|()\"", r) }) {
				words := strings.Fields(part)
				at := slices.Index(words, "keelson")
				if at < 0 {
					continue
				}
				target, rest, err := c.Root().Find(words[at+1:])
				if err == nil {
					err = target.ParseFlags(rest)
				}
				if err != nil || target == c.Root() && c != c.Root() {
					t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
				}
			}
		}
	})
}

// What looks at a running system takes --url and --token, and what has no use for
// them does not.
func TestSystemFlags(t *testing.T) {
	t.Parallel()
	commands(func(c *cobra.Command) {
		_ = c.ParseFlags(nil) // merges those of the commands above
		words := strings.Fields(c.CommandPath() + " ")
		for _, name := range []string{"url", "token"} {
			flag := c.Flags().Lookup(name)
			has := flag != nil
			if has && strings.Contains(flag.Usage, "`") { // help takes it for the kind of value, as in "--url up"
				t.Errorf("%s --help calls the value of --%s what is in backquotes: %s", c.CommandPath(), name, flag.Usage)
			}
			if len(words) > 1 && slices.Contains([]string{"services", "status", "doctor"}, words[1]) && !has {
				t.Errorf("%s has no --%s", c.CommandPath(), name)
			}
			if len(words) > 1 && slices.Contains([]string{"up", "token", "version"}, words[1]) && has {
				t.Errorf("%s has --%s, for nothing", c.CommandPath(), name)
			}
		}
	})
}

// A complaint about the arguments themselves is JSON as well, if that is asked
// for.
func TestUsageFailureAsJSON(t *testing.T) {
	t.Parallel()
	for _, args := range []string{
		"services list a b -o json", "services --nope -o json", "services -ojson list --nope", "status --output=json extra", "version -o json extra",
		"services drain -o json", "token --output json --ttl -1s", "services show a.b.c --output json",
	} {
		got := keelson(t, nil, strings.Fields(args)...)
		var f map[string]string
		if err := json.Unmarshal([]byte(got.stderr), &f); err != nil || f["code"] != "usage" || got.code != exitUsage || got.stdout != "" {
			t.Errorf("%s: %+v (%v)", args, got, err)
		}
	}
	if got := keelson(t, nil, "services", "list", "a", "b", "-o", "yaml"); !strings.HasPrefix(got.stderr, "error: ") {
		t.Errorf("%+v", got)
	}
}

func TestTokenAsJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	var token mintedToken
	got := keelson(t, nil, "token", "-o", "json", "--scope", "a")
	if err := json.Unmarshal([]byte(got.stdout), &token); err != nil || token.Token == "" || token.Subject != "dev" || len(token.Scopes) != 1 || token.Expires.IsZero() {
		t.Errorf("%v: %+v", err, got)
	}
}
