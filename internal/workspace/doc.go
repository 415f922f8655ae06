// Package workspace is the folder .keelson of a project, and one process's place
// in it: a lock, so that there is one system a project; the run file, by which
// commands and services find it; the development key; and the folder for data.
//
//	w, err := workspace.Open(project, "keelson up", ephemeral)
//	defer w.Close()
//	ended, err := w.Reap(ctx)
//	err = w.Note(func(f *runfile.File) { f.Gateway = url })
//
// Whoever is killed leaves the run file behind. The next one ends what processes
// it still lists ([Workspace.Reap]), and goes on with the engine's address and
// credentials ([Workspace.EngineListen]), so that services that were started by
// hand find their way back.
package workspace
