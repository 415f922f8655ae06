package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// verdict is what a check comes to.
type verdict string

const (
	fine     verdict = "ok"
	doubtful verdict = "warn"
	broken   verdict = "fail"
	skipped  verdict = "skip" // it can't be told here and now, which is no failure
)

// finding is the result of a check.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Message string  `json:"message"`
	Fix     string  `json:"fix,omitempty"` // what to do about it
}

// diagnosis is all findings, as programs read them.
type diagnosis struct {
	Well   bool      `json:"well"`
	Checks []finding `json:"checks"`
}

// check finds something out. It returns soon after ctx ends, if it can.
type check struct {
	name string
	run  func(ctx context.Context) []finding
}

// checkTimeout is how long one check may take.
const checkTimeout = 5 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong, and how to put it right",
		Long: "Check this machine, the project and the running system, if there is one, and say of each what is\n" +
			"wrong and how to put it right. What can't be checked, as nothing runs, is skipped and said.\n\n" +
			"Exit code 1 if anything fails; warnings don't count.",
		Example: "  keelson doctor\n  keelson doctor --url https://keelson.example:3100\n  keelson doctor -o json | jq '.checks[] | select(.verdict == \"fail\")'",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.doctor(cmd.Context(), file) },
	}
	a.systemFlags(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "", "manifest (default: keelson.yaml here or above)")
	a.outputFlag(cmd, "text", "json", "yaml")
	return cmd
}

func (a *app) doctor(ctx context.Context, file string) error {
	// A bad address is a slip in the command, nothing that fails out there.
	if _, _, err := a.admin(); err != nil && (a.url != "" || a.env("KEELSON_URL") != "") {
		return err
	}
	p := a.patient(ctx, file)
	d := diagnosis{Well: true, Checks: []finding{}}
	show := func(all []finding) error {
		d.Checks = append(d.Checks, all...)
		if a.output != "text" {
			return nil
		}
		return writeFindings(a.stdout, a.style(a.stdout), all)
	}
	if err := examine(ctx, p.checks(), checkTimeout, show); err != nil {
		return err
	}
	count := map[verdict]int{}
	for _, f := range d.Checks {
		count[f.Verdict]++
	}
	d.Well = count[broken] == 0
	switch a.output {
	case "json":
		if err := writeJSON(a.stdout, d); err != nil {
			return err
		}
	case "yaml":
		if err := writeYAML(a.stdout, d); err != nil {
			return err
		}
	default:
		fmt.Fprintf(a.stderr, "\n%d ok, %d to look at, %d failed, %d skipped\n", count[fine], count[doubtful], count[broken], count[skipped])
	}
	if !d.Well {
		return &failure{code: exitFailed} // what fails has been told
	}
	return nil
}

// examine runs all checks at once and shows what they find in their order, each
// as soon as it and those before it are done. A check that is stuck where nothing
// can end it, as on a dead network disk, is left behind.
func examine(ctx context.Context, checks []check, timeout time.Duration, show func([]finding) error) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	late := time.NewTimer(timeout + timeout/10) // a check that heeds bounded says more than we can
	defer late.Stop()
	results := make([]chan []finding, len(checks))
	for i, c := range checks {
		results[i] = make(chan []finding, 1)
		go func() { results[i] <- c.run(bounded) }()
	}
	expired := false
	for i, c := range checks {
		var found []finding
		if expired {
			select {
			case found = <-results[i]:
			default:
				found = stuck(c.name, timeout)
			}
		} else {
			select {
			case found = <-results[i]:
			case <-ctx.Done():
			case <-late.C:
				expired, found = true, stuck(c.name, timeout)
			}
		}
		if ctx.Err() != nil {
			return interrupted()
		}
		if err := show(found); err != nil {
			return err
		}
	}
	return nil
}

func stuck(name string, timeout time.Duration) []finding {
	return []finding{{name, broken, fmt.Sprintf("it could not be found out in %v", timeout), "see what holds it up: a disk or a name server that does not answer, or a machine too busy"}}
}

var verdictColors = map[verdict]string{fine: green, doubtful: yellow, broken: red, skipped: dim}

func writeFindings(w io.Writer, s style, all []finding) error {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%s %-20s %s\n", s.paint(verdictColors[f.Verdict], fmt.Sprintf("%-4s", f.Verdict)), clean(f.Check), clean(f.Message))
		if f.Fix != "" {
			fmt.Fprintf(&b, "%25s %s %s\n", "", s.paint(yellow, "fix:"), clean(f.Fix))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
