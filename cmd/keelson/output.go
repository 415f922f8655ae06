package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// outputFlag gives cmd -o with the formats it has.
func (a *app) outputFlag(cmd *cobra.Command, formats ...string) {
	format := cmd.Flags().StringP("output", "o", formats[0], "format: "+strings.Join(formats, ", "))
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.output = *format
		if !slices.Contains(formats, a.output) {
			return &failure{code: exitUsage, message: fmt.Sprintf("--output is %q", a.output), hint: "use " + strings.Join(formats, ", ")}
		}
		return run(cmd, args)
	}
	// It can't fail: the flag was just added.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// writeYAML writes v with the names it has in JSON.
func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var plain any
	// JSON is YAML, too; read as such, whole numbers stay whole.
	if err := yaml.Unmarshal(b, &plain); err != nil {
		return err
	}
	out, err := yaml.Marshal(plain)
	if err != nil {
		return err
	}
	_, err = w.Write(out)
	return err
}
