package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

func (a *app) servicesCommand() *cobra.Command {
	services := &cobra.Command{
		Use:     "services",
		Aliases: []string{"service"},
		Short:   "Look at the services that are up, and steer them",
		Long: "Look at the registry of a running system, and steer it: take instances out of rotation\n" +
			"and back, register programs that can't do it themselves. Alone it lists all instances.\n\n" +
			"An instance is named by two words, or by one, as -o name prints it:\n" +
			"  keelson services show user-service user-service-1\n" +
			"  keelson services show user-service.user-service-1",
		Example: "  keelson services\n  keelson services -o wide --status unhealthy\n  keelson services drain user-service user-service-1",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    a.listServices,
	}
	a.systemFlags(services)
	listing := &cobra.Command{
		Use:               "list [SERVICE]",
		Short:             "List the instances of all services, or of one",
		Example:           "  keelson services list\n  keelson services list user-service -o json",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		RunE:              a.listServices,
		ValidArgsFunction: a.completeService,
	}
	for _, c := range []*cobra.Command{services, listing} {
		c.Flags().StringArray("tag", nil, "only instances with this tag; repeat for several")
		c.Flags().StringArray("status", nil, "only instances in this state; repeat for several")
		a.outputFlag(c, "table", "wide", "json", "yaml", "name")
		// It can't fail: the flag was just added.
		_ = c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"starting", "healthy", "degraded", "unhealthy", "draining"}, cobra.ShellCompDirectiveNoFileComp))
	}
	services.AddCommand(listing, a.showCommand(), a.watchCommand(),
		a.drainCommand(), a.undrainCommand(), a.deregisterCommand(),
		a.pickCommand(), a.registerCommand(), a.heartbeatCommand())
	return services
}

// keysOf reads the instances that arguments name: SERVICE INSTANCE…, or
// SERVICE.INSTANCE….
func keysOf(cmd *cobra.Command, args []string) ([]registry.Key, error) {
	wrong := func(format string, args ...any) error {
		return &failure{code: exitUsage, message: fmt.Sprintf(format, args...), hint: "name it as in: " + cmd.CommandPath() + " user-service user-service-1"}
	}
	service, rest := "", args
	if len(args) > 0 && !strings.Contains(args[0], ".") {
		service, rest = args[0], args[1:]
		if !registry.ValidName(service) {
			return nil, wrong("%q is not a service's name", service)
		}
	}
	if len(rest) == 0 {
		return nil, wrong("%s needs an instance", cmd.CommandPath())
	}
	var keys []registry.Key
	for _, word := range rest {
		name := word
		if service != "" && !strings.Contains(word, ".") {
			name = service + "." + word
		}
		key, err := registry.ParseKey(name)
		if err != nil {
			return nil, wrong("%q names no instance", word)
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// statusColor is how a status is painted; red is for failures.
func statusColor(s registry.Status) string {
	switch s {
	case health.Healthy:
		return green
	case health.Degraded, health.Starting, health.Draining:
		return yellow
	}
	return red
}

// list writes instances in the formats for programs: one value of JSON or YAML, or
// a name in each line. The ones for people write nothing.
func (a *app) list(all []registry.Instance) error {
	switch a.output {
	case "json":
		return writeJSON(a.stdout, all)
	case "yaml":
		return writeYAML(a.stdout, all)
	case "name":
		for _, i := range all {
			if _, err := fmt.Fprintln(a.stdout, clean(i.Key().String())); err != nil {
				return err
			}
		}
	}
	return nil
}
