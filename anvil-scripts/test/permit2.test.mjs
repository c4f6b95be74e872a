// Payments by Permit2 go through the canonical Permit2 and the stand-ins for the x402 proxies.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { privateKeyToAccount } from "viem/accounts";
import { encodeFunctionData, hexToBigInt, parseAbi, parseSignature } from "viem";
import { chain, sendAndMine, TOKEN, TOPIC, usdcOf, view } from "./support.mjs";

const PERMIT = "((address token, uint256 amount) permitted, uint256 nonce, uint256 deadline) permit";
const PERMIT_2612 = "(uint256 value, uint256 deadline, bytes32 r, bytes32 s, uint8 v) permit2612";
const EXACT = parseAbi([
  `function settle(${PERMIT}, address owner, (address to, uint256 validAfter) witness, bytes signature)`,
  `function settleWithPermit(${PERMIT_2612}, ${PERMIT}, address owner, (address to, uint256 validAfter) witness, bytes signature)`,
]);
const UPTO = parseAbi([
  `function settle(${PERMIT}, uint256 amount, address owner, (address to, address facilitator, uint256 validAfter) witness, bytes signature)`,
]);
const TOKEN_PERMISSIONS = [
  { name: "token", type: "address" },
  { name: "amount", type: "uint256" },
];
const EXACT_WITNESS = [
  { name: "to", type: "address" },
  { name: "validAfter", type: "uint256" },
];
const UPTO_WITNESS = [EXACT_WITNESS[0], { name: "facilitator", type: "address" }, EXACT_WITNESS[1]];
const UNAUTHORIZED_FACILITATOR = "0x0f6fae87";
const AMOUNT_EXCEEDS_PERMITTED = "0xfe64b4c7";
const AMOUNT = 50_000n;
const EVERYTHING = 2n ** 256n - 1n;

test("Permit2 payments", async (t) => {
  const node = await chain(t);
  const [payer, newcomer] = node.payers;
  await node.rpc("anvil_setBalance", payer.address, "0xde0b6b3a7640000");
  const approval = encodeFunctionData({ abi: TOKEN, functionName: "approve", args: [node.permit2, EVERYTHING] });
  assert.equal((await sendAndMine(node, payer, node.usdc, approval)).status, "0x1");
  const paid = () => usdcOf(node, node.payee.address);

  await t.test("exact: settle moves what was signed", async () => {
    const before = await paid();
    const data = encodeFunctionData({ abi: EXACT, functionName: "settle", args: await exact(node, payer) });
    const receipt = await sendAndMine(node, node.wallet, node.exactProxy, data);
    assert.equal(receipt.status, "0x1");
    assert.deepEqual(receipt.logs.map(({ topics }) => topics[0]), [TOPIC.transfer, TOPIC.settled]);
    assert.equal(await paid(), before + AMOUNT);
    await assert.rejects(node.rpc("eth_call", { to: node.exactProxy, data }, "latest"), /revert/, "it is settled once");
  });

  await t.test("exact: another payee than the signed one is refused", async () => {
    const [permit, owner, witness, signature] = await exact(node, payer);
    const stolen = { ...witness, to: node.stranger.address };
    const data = encodeFunctionData({ abi: EXACT, functionName: "settle", args: [permit, owner, stolen, signature] });
    await assert.rejects(node.rpc("eth_call", { to: node.exactProxy, data }, "latest"), /revert/);
  });

  await t.test("exact: settleWithPermit approves Permit2 by the token's own permit", async () => {
    const before = await paid();
    const args = [await permit2612(node, newcomer), ...(await exact(node, newcomer))];
    const data = encodeFunctionData({ abi: EXACT, functionName: "settleWithPermit", args });
    const receipt = await sendAndMine(node, node.wallet, node.exactProxy, data);
    assert.equal(receipt.status, "0x1");
    assert.equal(receipt.logs.at(-1).topics[0], TOPIC.settledWithPermit);
    assert.equal(await paid(), before + AMOUNT);
  });

  await t.test("upto: only the signed facilitator settles, and at most what was permitted", async () => {
    const before = await paid();
    const [permit, owner, witness, signature] = await upto(node, payer);
    const charge = (amount) =>
      encodeFunctionData({ abi: UPTO, functionName: "settle", args: [permit, amount, owner, witness, signature] });
    const call = (from, data) => node.rpc("eth_call", { from: from.address, to: node.uptoProxy, data }, "latest");

    const stranger = await sendAndMine(node, node.stranger, node.uptoProxy, charge(1n));
    assert.equal(stranger.status, "0x0");
    await assert.rejects(call(node.stranger, charge(1n)), revertedWith(UNAUTHORIZED_FACILITATOR));
    await assert.rejects(call(node.wallet, charge(AMOUNT + 1n)), revertedWith(AMOUNT_EXCEEDS_PERMITTED));
    assert.equal(await paid(), before);

    assert.equal((await sendAndMine(node, node.wallet, node.uptoProxy, charge(20_000n))).status, "0x1");
    assert.equal(await paid(), before + 20_000n);
  });
});

async function exact(node, payer) {
  const witness = { to: node.payee.address, validAfter: 0n };
  const { permit, signature } = await permit2(node, payer, node.exactProxy, EXACT_WITNESS, witness);
  return [permit, payer.address, witness, signature];
}

async function upto(node, payer) {
  const witness = { to: node.payee.address, facilitator: node.wallet.address, validAfter: 0n };
  const { permit, signature } = await permit2(node, payer, node.uptoProxy, UPTO_WITNESS, witness);
  return [permit, payer.address, witness, signature];
}

async function permit2(node, payer, spender, witnessType, witness) {
  const permit = {
    permitted: { token: node.usdc, amount: AMOUNT },
    nonce: hexToBigInt(`0x${randomBytes(32).toString("hex")}`),
    deadline: BigInt(Math.floor(Date.now() / 1000) + 300),
  };
  const signature = await privateKeyToAccount(payer.privateKey).signTypedData({
    domain: { name: "Permit2", chainId: node.chainId, verifyingContract: node.permit2 },
    types: {
      PermitWitnessTransferFrom: [
        { name: "permitted", type: "TokenPermissions" },
        { name: "spender", type: "address" },
        { name: "nonce", type: "uint256" },
        { name: "deadline", type: "uint256" },
        { name: "witness", type: "Witness" },
      ],
      TokenPermissions: TOKEN_PERMISSIONS,
      Witness: witnessType,
    },
    primaryType: "PermitWitnessTransferFrom",
    message: { ...permit, spender, witness },
  });
  return { permit, signature };
}

async function permit2612(node, owner) {
  const deadline = BigInt(Math.floor(Date.now() / 1000) + 300);
  const nonce = BigInt(await view(node, node.usdc, TOKEN, "nonces", owner.address));
  const signature = await privateKeyToAccount(owner.privateKey).signTypedData({
    domain: { name: node.usdcName, version: node.usdcVersion, chainId: node.chainId, verifyingContract: node.usdc },
    types: {
      Permit: [
        { name: "owner", type: "address" },
        { name: "spender", type: "address" },
        { name: "value", type: "uint256" },
        { name: "nonce", type: "uint256" },
        { name: "deadline", type: "uint256" },
      ],
    },
    primaryType: "Permit",
    message: { owner: owner.address, spender: node.permit2, value: AMOUNT, nonce, deadline },
  });
  const { r, s, v } = parseSignature(signature);
  return { value: AMOUNT, deadline, r, s, v: Number(v) };
}

function revertedWith(selector) {
  return ({ message }) => message.includes(selector) || assert.fail(`expected ${selector}: ${message}`);
}
