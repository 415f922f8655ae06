package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/registry"
)

// changeFlags are those of commands that change instances.
type changeFlags struct {
	yes, dryRun, wait bool
	timeout           time.Duration
}

func (f *changeFlags) add(cmd *cobra.Command, asks bool) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	if asks {
		cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "don't ask")
	}
}

func (a *app) drainCommand() *cobra.Command {
	var flags changeFlags
	cmd := &cobra.Command{
		Use:   "drain SERVICE INSTANCE...",
		Short: "Take instances out of rotation; what they have they finish",
		Long: "Take instances out of rotation by hand: they get no new requests and finish those they have.\n" +
			"No check puts them back; `keelson services undrain` does, or the instance itself when it next\n" +
			"changes its status, as it does after a restart.\n\n" +
			"It waits until the gateway sends them nothing any more. If that would leave a service with no\n" +
			"instance in rotation, it asks first.",
		Example: "  keelson services drain user-service user-service-1\n" +
			"  keelson services drain user-service.user-service-1 pay.pay-2\n" +
			"  keelson services list old-service -o name | xargs keelson services drain --yes",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.drain(cmd, args, flags) },
		ValidArgsFunction: a.completeInstances,
	}
	flags.add(cmd, true)
	cmd.Flags().BoolVar(&flags.wait, "wait", true, "wait until they are out of rotation")
	cmd.Flags().DurationVar(&flags.timeout, "timeout", 30*time.Second, "how long to wait")
	a.outputFlag(cmd, "text", "json", "yaml", "name")
	return cmd
}

func (a *app) undrainCommand() *cobra.Command {
	var flags changeFlags
	cmd := &cobra.Command{
		Use:               "undrain SERVICE INSTANCE...",
		Short:             "Put drained instances back into rotation",
		Long:              "Put instances back that `keelson services drain` took out of rotation: they count again as what\nthey say of themselves.",
		Example:           "  keelson services undrain user-service user-service-1\n  keelson services undrain user-service.user-service-1",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.undrain(cmd, args, flags) },
		ValidArgsFunction: a.completeInstances,
	}
	flags.add(cmd, false)
	a.outputFlag(cmd, "text", "json", "yaml", "name")
	return cmd
}

func (a *app) deregisterCommand() *cobra.Command {
	var flags changeFlags
	cmd := &cobra.Command{
		Use:   "deregister SERVICE INSTANCE...",
		Short: "Remove instances from the registry",
		Long: "Remove instances from the registry, such as those of a machine that is gone. It does not stop\n" +
			"them: one that runs and renews its own lease registers again. To keep a running one from getting\n" +
			"requests, drain it.",
		Example: "  keelson services deregister legacy legacy-10-0-0-7-80\n" +
			"  keelson services deregister legacy.legacy-10-0-0-7-80 --yes",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.deregister(cmd, args, flags) },
		ValidArgsFunction: a.completeInstances,
	}
	flags.add(cmd, true)
	a.outputFlag(cmd, "text", "json", "yaml", "name")
	return cmd
}

// chosen returns the instances that a command's arguments name.
func (a *app) chosen(cmd *cobra.Command, args []string) ([]registry.Key, []registry.Instance, error) {
	keys, err := keysOf(cmd, args)
	if err != nil {
		return nil, nil, err
	}
	all, err := a.instances(cmd.Context(), keys)
	return keys, all, err
}

func (a *app) drain(cmd *cobra.Command, args []string, flags changeFlags) error {
	ctx := cmd.Context()
	if flags.wait && flags.timeout <= 0 {
		return &failure{code: exitUsage, message: fmt.Sprintf("--timeout is %v", flags.timeout), hint: "give a time such as 30s, or --wait=false"}
	}
	keys, all, err := a.chosen(cmd, args)
	if err != nil {
		return err
	}
	bare, err := a.leftBare(ctx, all)
	if err != nil {
		return err
	}
	if flags.dryRun {
		return a.dryRun(all, "would be drained")
	}
	if len(bare) > 0 && !flags.yes {
		question := fmt.Sprintf("This leaves no instance of %s in rotation. Drain all the same?", strings.Join(bare, " and "))
		if err := a.confirm(ctx, question); err != nil {
			return err
		}
	}
	for i, key := range keys {
		if all[i], err = a.instance(ctx, http.MethodPost, key, "/drain"); err != nil {
			return err
		}
	}
	if flags.wait {
		if err := a.awaitOut(ctx, keys, flags.timeout); err != nil {
			return err
		}
	}
	for _, key := range keys {
		fmt.Fprintf(a.stderr, "%s is out of rotation; requests it has go on. Back with: keelson services undrain %[1]s\n", key)
	}
	return a.list(all)
}

// leftBare returns the services that have instances in rotation, all of which
// are among those given.
func (a *app) leftBare(ctx context.Context, leaving []registry.Instance) ([]string, error) {
	var bare []string
	for _, name := range services(leaving) {
		all, err := fetch[[]registry.Instance](ctx, a, http.MethodGet, "/v1/services/"+name, nil)
		if err != nil {
			return nil, err
		}
		before, after := 0, 0
		for _, in := range all {
			if !in.Status.Serving() {
				continue
			}
			before++
			if !slices.ContainsFunc(leaving, func(l registry.Instance) bool { return l.Key() == in.Key() }) {
				after++
			}
		}
		if before > 0 && after == 0 {
			bare = append(bare, name)
		}
	}
	return bare, nil
}

// lookAgain is how often is looked whether instances are out of rotation.
const lookAgain = 50 * time.Millisecond

// awaitOut waits until neither the registry node nor the gateway has any of the
// instances in rotation.
func (a *app) awaitOut(ctx context.Context, keys []registry.Key, timeout time.Duration) error {
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	gateway := ""
	// A system that tells no gateway has none to ask.
	base, source, err := a.admin()
	if err != nil {
		return err
	}
	if s, err := fetch[console.System](within, a, http.MethodGet, "/v1/system", nil); err == nil && askable(s.Gateway.URL, base, source) {
		gateway = s.Gateway.URL
	}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		left, err := a.inRotation(within, gateway, keys)
		if err == nil && left == "" {
			return nil
		}
		select {
		case <-tick.C:
			if err == nil {
				continue
			}
		case <-within.Done():
		}
		switch {
		case ctx.Err() != nil:
			return interrupted()
		case within.Err() == nil:
			return err
		case left == "":
			left = keys[0].String()
		}
		return &failure{code: exitTimeout, message: fmt.Sprintf("%s is still in rotation after %v", left, timeout), hint: "it is marked as draining; see `keelson services show " + left + "`"}
	}
}

// inRotation returns one of the instances that may still get requests, or "".
func (a *app) inRotation(ctx context.Context, gateway string, keys []registry.Key) (string, error) {
	all, err := fetch[[]registry.Instance](ctx, a, http.MethodGet, "/v1/services", nil)
	if err != nil {
		return "", err
	}
	all = append(all, a.routed(ctx, gateway)...)
	if ctx.Err() != nil { // what the gateway was asked is not known then
		return "", ctx.Err()
	}
	for _, in := range all {
		if in.Status.Serving() && slices.Contains(keys, in.Key()) {
			return in.Key().String(), nil
		}
	}
	return "", nil
}

// routed returns the instances as the gateway has them, if it shows them.
func (a *app) routed(ctx context.Context, gateway string) []registry.Instance {
	if gateway == "" {
		return nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, gateway+"/services", nil)
	if err != nil {
		return nil
	}
	resp, err := straight.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var all []registry.Instance
	if resp.StatusCode != http.StatusOK || json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&all) != nil {
		return nil
	}
	return all
}

func (a *app) undrain(cmd *cobra.Command, args []string, flags changeFlags) error {
	ctx := cmd.Context()
	keys, all, err := a.chosen(cmd, args)
	if err != nil {
		return err
	}
	if flags.dryRun {
		return a.dryRun(all, "would be undrained")
	}
	for i, key := range keys {
		in, err := a.instance(ctx, http.MethodDelete, key, "/drain")
		if err != nil {
			return err
		}
		all[i] = in
		if in.Status.Serving() {
			fmt.Fprintf(a.stderr, "%s is in rotation, %s\n", key, clean(string(in.Status)))
		} else {
			fmt.Fprintf(a.stderr, "%s is not drained any more, but %s\n", key, clean(string(in.Status)))
		}
	}
	return a.list(all)
}

func (a *app) deregister(cmd *cobra.Command, args []string, flags changeFlags) error {
	ctx := cmd.Context()
	keys, all, err := a.chosen(cmd, args)
	if err != nil {
		return err
	}
	a.warnOfReturn(ctx, all)
	if flags.dryRun {
		return a.dryRun(all, "would be deregistered")
	}
	if !flags.yes {
		var names []string
		for _, key := range keys {
			names = append(names, key.String())
		}
		if err := a.confirm(ctx, fmt.Sprintf("Remove %s from the registry?", strings.Join(names, ", "))); err != nil {
			return err
		}
	}
	for _, key := range keys {
		if _, err := fetch[nothing](ctx, a, http.MethodDelete, pathOf(key), nil); err != nil {
			return err
		}
		fmt.Fprintf(a.stderr, "%s is deregistered\n", key)
	}
	return a.list(all)
}

// warnOfReturn warns of instances that will not stay away.
func (a *app) warnOfReturn(ctx context.Context, all []registry.Instance) {
	own := slices.DeleteFunc(slices.Clone(all), func(in registry.Instance) bool { return in.Lease != registry.LeaseConnection })
	for _, in := range checkUpAll(ctx, own) {
		if !in.Checkup.Reachable && time.Since(in.LastHeartbeat) > registry.DefaultTTL {
			continue
		}
		fmt.Fprintf(a.stderr, "%s %s runs and renews its own lease: it will register again. To keep requests away from it: keelson services drain %[2]s\n",
			a.style(a.stderr).paint(yellow, "warning:"), in.Key())
	}
}

// dryRun says what would be done to instances.
func (a *app) dryRun(all []registry.Instance, what string) error {
	for _, in := range all {
		fmt.Fprintf(a.stderr, "%s %s (dry run)\n", in.Key(), what)
	}
	return a.list(all)
}
