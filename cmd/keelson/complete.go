package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keelson-go/keelson/registry"
)

// completeTimeout is how long a person who pressed Tab waits for names.
const completeTimeout = 300 * time.Millisecond

// names returns what is registered, or nothing if no system answers in time.
func (a *app) names(ctx context.Context) []registry.Instance {
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	all, err := fetch[[]registry.Instance](ctx, a, http.MethodGet, "/v1/services", nil)
	if err != nil {
		return nil
	}
	return all
}

// completeService completes one argument: a service.
func (a *app) completeService(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return services(a.names(cmd.Context())), cobra.ShellCompDirectiveNoFileComp
}

// completeServices completes any number of services.
func (a *app) completeServices(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	left := slices.DeleteFunc(services(a.names(cmd.Context())), func(s string) bool { return slices.Contains(args, s) })
	return left, cobra.ShellCompDirectiveNoFileComp
}

// completeInstances completes SERVICE INSTANCE… or SERVICE.INSTANCE….
func (a *app) completeInstances(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all := a.names(cmd.Context())
	var words []string
	switch {
	case len(args) > 0 && !strings.Contains(args[0], "."):
		words = instancesOf(all, args[0])
	case len(args) > 0 || strings.Contains(toComplete, "."):
		for _, in := range all {
			words = append(words, in.Key().String())
		}
	default:
		words = services(all)
	}
	words = slices.DeleteFunc(words, func(w string) bool { return slices.Contains(args, w) })
	return words, cobra.ShellCompDirectiveNoFileComp
}

// services returns the services' names, each once.
func services(all []registry.Instance) []string {
	var names []string
	for _, in := range all {
		names = append(names, in.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func instancesOf(all []registry.Instance, service string) []string {
	var ids []string
	for _, in := range all {
		if in.Name == service {
			ids = append(ids, in.ID)
		}
	}
	return ids
}

// noService says that nothing of that name is registered, and what was probably
// meant.
func noService(name string, all []registry.Instance) *failure {
	f := &failure{code: exitNotFound, message: fmt.Sprintf("no instance of %q is registered", name)}
	f.hint = suggest(name, services(all), "see `keelson services` for what is")
	return f
}

// noInstance is noService for one instance.
func noInstance(key registry.Key, all []registry.Instance) *failure {
	ids := instancesOf(all, key.Service)
	if len(ids) == 0 {
		return noService(key.Service, all)
	}
	f := &failure{code: exitNotFound, message: fmt.Sprintf("%s has no instance %q", key.Service, key.ID)}
	f.hint = suggest(key.ID, ids, fmt.Sprintf("see `keelson services list %s` for those it has", key.Service))
	return f
}

// suggest asks whether one of the names was meant that are like word.
func suggest(word string, names []string, otherwise string) string {
	if like := closest(word, names); len(like) > 0 {
		return "did you mean " + strings.Join(like, " or ") + "?"
	}
	return otherwise
}

// closest returns at most three names that a person may have meant by word, the
// likeliest first.
func closest(word string, names []string) []string {
	type candidate struct {
		name string
		far  int
	}
	var found []candidate
	for _, name := range names {
		name = clean(name)
		far := distance(word, name)
		switch {
		case far <= max(2, len(word)/4):
		case word != "" && strings.Contains(name, word):
			far = 3 // as likely as three slips
		default:
			continue
		}
		found = append(found, candidate{name, far})
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.far, b.far) })
	var like []string
	for _, c := range found[:min(3, len(found))] {
		like = append(like, c.name)
	}
	return like
}

// distance is the Levenshtein distance: how many characters have to be added,
// left out or replaced to get from a to b.
func distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i, r := range from {
		diagonal := row[0]
		row[0] = i + 1
		for j, s := range to {
			step := diagonal
			if r != s {
				step = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], step
		}
	}
	return row[len(to)]
}
