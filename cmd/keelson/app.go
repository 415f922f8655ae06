package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// app is one run of the command line.
type app struct {
	stdin          *os.File // to ask a person; nil means there is none
	stdout, stderr io.Writer
	env            func(string) string
	forced         <-chan struct{} // closed by a second signal

	color  string // auto, always or never
	output string // of commands that list something
	url    string // of the running system
	token  string // for its admin API
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	f, known := errors.AsType[*failure](err)
	if !known {
		f = &failure{code: exitFailed, message: err.Error()}
	}
	if f.message != "" { // the data on stdout has said it all
		f.print(a.stderr, a.output == "json" || wantsJSON(args), a.style(a.stderr))
	}
	return f.code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "keelson",
		Short:         "Run and inspect a fleet of services",
		Long:          "Keelson ties a fleet of services together: registry, gateway, resilient calls,\nevents, queues, sagas and telemetry in one binary.",
		Example:       "  keelson up                  # run the project in this folder\n  keelson services watch      # see instances come and go",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error {
			switch a.color {
			case "auto", "always", "never":
				return nil
			}
			return &failure{code: exitUsage, message: fmt.Sprintf("--color is %q", a.color), hint: "use auto, always or never"}
		},
	}
	root.PersistentFlags().StringVar(&a.color, "color", "auto", "colours: auto, always or never")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &failure{code: exitUsage, message: err.Error(), hint: "see " + cmd.CommandPath() + " --help"}
	})
	root.AddCommand(a.upCommand(), a.downCommand(), a.restartCommand(), a.logsCommand())
	root.AddCommand(a.servicesCommand(), a.tokenCommand(), a.versionCommand())
	root.AddCommand(a.statusCommand(), a.doctorCommand())
	return root
}

// usageArgs makes a complaint about arguments a usage failure, with what was
// probably meant.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		f := &failure{code: exitUsage, hint: "see " + cmd.CommandPath() + " --help"}
		if len(args) == 0 {
			f.message = cmd.CommandPath() + " needs an argument"
			return f
		}
		most := len(args) - 1 // of the arguments it can take
		for most > 0 && check(cmd, args[:most]) != nil {
			most--
		}
		f.message = fmt.Sprintf("%s does not take %q", cmd.CommandPath(), args[most])
		cmd.SuggestionsMinimumDistance = 2
		if like := cmd.SuggestionsFor(args[most]); len(like) > 0 {
			f.hint = "did you mean " + strings.Join(like, " or ") + "?"
		}
		return f
	}
}

// style colours text for w, or leaves it as it is.
func (a *app) style(w io.Writer) style {
	switch {
	case a.color == "always":
		return true
	case a.color == "never", a.env("NO_COLOR") != "", a.env("TERM") == "dumb":
		return false
	}
	return style(terminal(w))
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	width, _ := terminalSize(w)
	return width >= 0
}

// terminalSize returns the columns and lines of the terminal that w is, zeroes
// if it does not know them, and -1 if it is none, as /dev/null is none.
func terminalSize(w io.Writer) (columns, lines int) {
	f, ok := w.(*os.File)
	if !ok || f == nil {
		return -1, -1
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return -1, -1
	}
	return int(size.Col), int(size.Row)
}

// style is whether to use colours: ANSI SGR sequences.
type style bool

const (
	bold, dim, red, green, yellow = "1", "2", "31", "32", "33"
)

// prefixColors tell services apart; red is for failures.
var prefixColors = []string{"36", "35", "34", "32", "33", "96", "95", "94"}

func (s style) paint(sgr, text string) string {
	if !s || sgr == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}
