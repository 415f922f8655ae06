package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/registry"
)

// announcement is the body of POST /v1/services.
type announcement struct {
	Name     string            `json:"name"`
	ID       string            `json:"id,omitempty"`
	Address  string            `json:"address"`
	Port     int               `json:"port,omitempty"`
	Health   string            `json:"health,omitempty"`
	Version  string            `json:"version,omitempty"`
	Tags     []string          `json:"tags,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Zone     string            `json:"zone,omitempty"`
}

// announced is its answer.
type announced struct {
	registry.Instance
	TTL float64 `json:"ttl"` // s
}

func (a *app) registerCommand() *cobra.Command {
	var what announcement
	var metadata []string
	cmd := &cobra.Command{
		Use:   "register SERVICE",
		Short: "Register a program that does not do so itself",
		Long: "Register a program that does not do so itself. With --health it stays for as long as it passes\n" +
			"that check; without, for as long as heartbeats come. Its name is printed.\n\n" +
			"Registering the same instance again replaces its record.",
		Example: "  keelson services register legacy --address http://10.0.0.7:8080 --health /status\n" +
			"  keelson services register mailer --address 127.0.0.1 --port 2525 --tag blue --metadata owner=ops\n" +
			"  keelson services heartbeat mailer.mailer-127-0-0-1-2525 --every 5s",
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if what.Name != "" && what.Name != args[0] {
					return &failure{code: exitUsage, message: fmt.Sprintf("it is named twice, %q and %q", args[0], what.Name), hint: "leave out --name"}
				}
				what.Name = args[0]
			}
			return a.register(cmd, what, metadata)
		},
		ValidArgsFunction: a.completeService,
	}
	flags := cmd.Flags()
	flags.StringVar(&what.Name, "name", "", "the service's name, instead of the argument")
	flags.StringVar(&what.ID, "id", "", "the instance's id (default: made of name, host and port)")
	flags.StringVar(&what.Address, "address", "", "its base URL, or its host together with --port")
	flags.IntVar(&what.Port, "port", 0, "its port, if the address has none")
	flags.StringVar(&what.Health, "health", "", "its health check, a path or a URL on the same host")
	flags.StringVar(&what.Version, "version", "", "its version")
	flags.StringVar(&what.Zone, "zone", "", "the zone it runs in")
	flags.StringArrayVar(&what.Tags, "tag", nil, "a tag to select it by; repeat for several")
	flags.StringArrayVar(&metadata, "metadata", nil, "a key=value to keep with it; repeat for several")
	a.outputFlag(cmd, "name", "json", "yaml")
	return cmd
}

func (a *app) register(cmd *cobra.Command, what announcement, metadata []string) error {
	switch {
	case what.Name == "":
		return &failure{code: exitUsage, message: "the service's name is missing", hint: "see " + cmd.CommandPath() + " --help"}
	case what.Address == "":
		return &failure{code: exitUsage, message: "--address is missing", hint: "give its URL, such as --address http://127.0.0.1:8080"}
	}
	for _, pair := range metadata {
		k, v, ok := strings.Cut(pair, "=")
		if !ok || k == "" {
			return &failure{code: exitUsage, message: fmt.Sprintf("--metadata is %q", pair), hint: "give key=value"}
		}
		if what.Metadata == nil {
			what.Metadata = map[string]string{}
		}
		what.Metadata[k] = v
	}
	out, err := fetch[announced](cmd.Context(), a, http.MethodPost, "/v1/services", what)
	if err != nil {
		return err
	}
	if out.Name != what.Name || out.ID == "" {
		base, _, _ := a.admin() // it was found before
		return strange(base, "answers no instance of "+what.Name)
	}
	key := clean(out.Key().String())
	if what.Health != "" {
		fmt.Fprintf(a.stderr, "%s is registered; it gets requests once it passes its health check\n", key)
	} else {
		fmt.Fprintf(a.stderr, "%s is registered for %vs; keep it with: keelson services heartbeat %s --every %ds\n", key, out.TTL, key, max(1, int(out.TTL/3)))
	}
	switch a.output {
	case "json":
		return writeJSON(a.stdout, out)
	case "yaml":
		return writeYAML(a.stdout, out)
	}
	_, err = fmt.Fprintln(a.stdout, key)
	return err
}

func (a *app) heartbeatCommand() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "heartbeat SERVICE INSTANCE...",
		Short: "Renew the leases of instances that were registered without a health check",
		Long: "Renew the leases of instances that were registered without a health check: once, or until Ctrl-C\n" +
			"with --every. An instance that is not registered any more ends it with exit code 5.",
		Example: "  keelson services heartbeat mailer.mailer-127-0-0-1-2525\n" +
			"  keelson services heartbeat mailer mailer-127-0-0-1-2525 --every 5s",
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := keysOf(cmd, args)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("every") && every < 100*time.Millisecond {
				return &failure{code: exitUsage, message: fmt.Sprintf("--every is %v", every), hint: "give a time such as 5s"}
			}
			return a.heartbeat(cmd, keys, every)
		},
		ValidArgsFunction: a.completeInstances,
	}
	cmd.Flags().DurationVar(&every, "every", 0, "go on, with this pause (default: once)")
	return cmd
}

// heartbeat renews leases. Once it has worked, a system that is away for a while
// does not end it.
func (a *app) heartbeat(cmd *cobra.Command, keys []registry.Key, every time.Duration) error {
	ctx := cmd.Context()
	for first := true; ; first = false {
		for _, key := range keys {
			_, err := fetch[nothing](ctx, a, http.MethodPut, pathOf(key)+"/heartbeat", nil)
			switch err = a.known(ctx, key, err); {
			case err == nil:
			case every > 0 && ctx.Err() != nil:
				return nil //nolint:nilerr // Ctrl-C is how it ends
			case every > 0 && !first && mayPass(err):
				fmt.Fprintf(a.stderr, "%s: no heartbeat (%v); trying again\n", key, err)
			default:
				return err
			}
		}
		if every == 0 {
			return nil
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *app) pickCommand() *cobra.Command {
	var strategy, key, zone string
	var tags []string
	cmd := &cobra.Command{
		Use:   "pick SERVICE",
		Short: "Print one instance that can be called now",
		Long:  "Print one instance in rotation, chosen as the gateway would, for scripts. If there is none it\nfails with exit code 1.",
		Example: "  curl $(keelson services pick user-service)/users\n" +
			"  keelson services pick user-service --strategy round-robin -o name\n" +
			"  keelson services pick user-service --tag blue -o json",
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !registry.ValidName(args[0]) {
				return &failure{code: exitUsage, message: fmt.Sprintf("%q is not a service's name", args[0])}
			}
			q := url.Values{}
			for name, value := range map[string]string{"strategy": strategy, "key": key, "zone": zone} {
				if value != "" {
					q.Set(name, value)
				}
			}
			q["tag"] = tags
			in, err := fetch[registry.Instance](cmd.Context(), a, http.MethodGet, "/v1/services/"+args[0]+"/pick?"+q.Encode(), nil)
			if f, ok := errors.AsType[*failure](err); ok && f.code == exitFailed {
				if all := a.names(cmd.Context()); len(all) > 0 && instancesOf(all, args[0]) == nil {
					return noService(args[0], all)
				}
			}
			if err != nil {
				return err
			}
			if in.Name != args[0] || in.Address == "" {
				base, _, _ := a.admin() // it was found before
				return strange(base, "answers no instance of "+args[0])
			}
			return a.picked(in)
		},
		ValidArgsFunction: a.completeService,
	}
	cmd.Flags().StringVar(&strategy, "strategy", "", "how to choose: "+strings.Join(balance.Strategies(), ", "))
	cmd.Flags().StringVar(&key, "key", "", "the same key gets the same instance, with a strategy that hashes")
	cmd.Flags().StringVar(&zone, "zone", "", "only instances of this zone")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "only instances with this tag; repeat for several")
	a.outputFlag(cmd, "address", "name", "port", "json", "yaml")
	// It can't fail: the flag was just added.
	_ = cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions(balance.Strategies(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) picked(in registry.Instance) error {
	text := in.Address
	switch a.output {
	case "json":
		return writeJSON(a.stdout, in)
	case "yaml":
		return writeYAML(a.stdout, in)
	case "name":
		text = in.Key().String()
	case "port":
		text = strconv.Itoa(in.Port)
	}
	_, err := fmt.Fprintln(a.stdout, clean(text))
	return err
}
