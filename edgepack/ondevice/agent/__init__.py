r"""The agent: what edgepack runs on a device. Python 3.8, standard library only, streamed down an SSH channel.

The host makes one program of ``launcher.py`` and these modules (edgepack/device/bootstrap.py), and streams that.

The contract with the host (docs/protocol.md tells the same story for people)
-----------------------------------------------------------------------------
The host starts ``python3 -I -u -c <bootstrap>``; the bootstrap reads the program from its standard input and executes
it with ``EDGEPACK_NONCE`` set. The agent goes on with the same ``sys.stdin.buffer``: the host may send frames at once.

First output: ``\nEDGEPACK1 <nonce>\n``. The host throws away what came before (a banner, an ``echo`` in ``.bashrc``).

A frame, in both directions, is one line of JSON (UTF-8, at most 64 KiB with its newline) and ``n`` bytes of payload::

    request   {"id": 1, "verb": "put", "n": 4096, ...arguments}
    reply     {"id": 1, "ok": true, "n": 0, "result": {...}}
              {"id": 1, "ok": false, "n": 0, "error": {"code", "message", "hint", "details"}}
    progress  {"id": 1, "progress": {...}, "n": 0}                 (measure only; before the reply)
              {"id": 0, "progress": {"step": "alive"}, "n": 0}     (a sign of life, where hello asked for it)

Arguments or a result that do not fit into a line travel as the payload: the header then says ``"body": true`` and its n
bytes (at most 16 MiB) are the JSON object of the arguments, or of the result. A header or body has at most 200,000
values in 32 levels, no NaN and no number beyond a float's range.

Requests are answered in order, except ``ping``, which is answered at once, also while another verb runs. A request that
failed before it took its payload is answered first and its payload thrown away afterwards. A line that is no frame ends
the session, after a reply with ``"id": null``. Expected failures are data with a code, never a traceback.

When the agent has waited 60 s for the host (``hello`` may say another ``silence_s``), at the end of input and on
SIGTERM, SIGHUP or SIGINT, it kills its children and ends. What it was doing is settled by the next locked session.
With ``"heartbeat": true`` in ``hello`` it sends a sign of life four times in that time, whatever it is doing.

Verbs: hello, ping, probe, missing, put, delta, chunks, commit, activate, rollback, status, manifest, model, measure,
answer, collect, record, gc, trust.
Those that change something (put, delta, chunks, commit, activate, rollback, record, gc) need ``hello`` with ``"lock":
true``; those with ``op``, an operation id, answer a known id with its stored result and do nothing. With ``"dry_run":
true`` delta, activate, rollback and gc only tell what they would do, by the same rules; that needs neither lock nor op.

A pinned device
---------------
``trust`` lays the same program (as ``agent.py``), the allowed signers and ``pin.json`` down in a folder that the
deploying account cannot write. Its key may then run ``python3 -I -u .../agent.py --pinned`` and nothing else
(``command=`` in authorized_keys). Such an agent throws the agent that the host streams away unread (a host that knows
streams none: ``0 <nonce>``), and begins as any other. It works in the pinned root only, takes releases only whose
manifest an allowed signer signed and whose counter is higher than any before and not below the floor in ``pin.json``,
runs code of such releases and the pinned hooks and nothing else, and knows no ``trust``. docs/security.md says what
that is worth.

Rules of durability
-------------------
1. Everything is staged in ``incoming/``, verified there, fsynced, and moved into place by one rename.
2. ``current`` is a symlink replaced by rename; it alone says what is active. It is only ever pointed at a release whose
   digests were verified in the same call.
3. ``state.json`` is replaced atomically. An activation writes its intent first; a locked session begins by settling
   the intents that a kill or a power cut left.
4. A release is immutable; its id ends in the first 12 hex digits of its manifest's SHA-256, and the manifest holds the
   digest of every file. ``device.json`` (what was chosen on this device) lies outside of it.
5. No path leads out of the root: names are checked, and a symlink where a folder or a file is expected is an error.
"""
