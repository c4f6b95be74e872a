// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {vm} from "./Vm.sol";
import {Actor, Demanding, Echo, Factory, Flood, GullibleToken, Liar, Wallet} from "./LensTargets.sol";
import {LensByCreation} from "../src/LensByCreation.sol";
import {VerificationLens} from "../src/VerificationLens.sol";
import {GasBurner} from "../src/local/GasBurner.sol";

contract VerificationLensTest {
    address private constant PAYER = address(0xA11CE);
    address private constant PAYEE = address(0xB0B);
    bytes4 private constant SETTLE_BY_KEY = 0xe3ee160e;
    bytes4 private constant SETTLE = 0xcf092995;
    bytes4 private constant STATE = bytes4(keccak256("authorizationState(address,bytes32)"));
    bytes4 private constant BALANCE = bytes4(keccak256("balanceOf(address)"));
    bytes4 private constant MAGIC = 0x1626ba7e;
    uint256 private constant PLAIN = 110_000;
    uint256 private constant CONTRACT = 300_000;
    uint256 private constant DEPLOY = 900_000;
    uint256 private constant READ = 60_000;
    // From the first instruction of a target until it looks at the gas that is left.
    uint256 private constant ENTRY_GAS = 500;

    VerificationLens private lens;
    GullibleToken private token;
    Actor private actor;
    Echo private echo;
    Factory private factory;

    function setUp() public {
        lens = new VerificationLens();
        token = new GullibleToken();
        actor = new Actor();
        echo = new Echo();
        factory = new Factory();
        token.mint(PAYER, 1_000);
    }

    function test_the_block_is_told() public {
        vm.warp(1_234_567);
        VerificationLens.Sight memory sight = lens.look(new VerificationLens.Payment[](0), limits());
        require(sight.chainId == block.chainid && sight.blockNumber == block.number, "block");
        require(sight.blockTimestamp == 1_234_567 && sight.facts.length == 0, "time");
        require(sight.parentHash == blockhash(block.number - 1), "parent");
    }

    function test_a_payment_succeeds_and_is_undone() public {
        VerificationLens.Facts[] memory facts = look(twice(payment(address(token))));
        for (uint256 i = 0; i < 2; ++i) {
            VerificationLens.Facts memory fact = facts[i];
            require(fact.isSeen && fact.assetHasCode && fact.payerCodeSize == 0, "accounts");
            require(fact.authorizationState == 1 && fact.hasBalance && fact.balance == 1_000, "reads");
            require(fact.wasTried && fact.succeeds && !fact.isDeployed && !fact.signatureAccepted, "call");
            require(fact.revertData.length == 0, "data");
            // Nothing that came before made it cheaper.
            require(fact.gasUsed > 40_000 && fact.gasUsed == facts[0].gasUsed, "gas");
        }
        require(token.balanceOf(PAYEE) == 0, "kept");
    }

    function test_the_calldata_follows_from_who_the_payer_is() public {
        VerificationLens.Payment memory item = payment(address(echo));
        (bytes32 r, bytes32 s, uint8 v) = (bytes32(uint256(11)), bytes32(uint256(22)), 27);
        item.signature = abi.encodePacked(r, s, v);
        bytes memory head = abi.encode(
            item.payer, item.payee, item.amount, item.validAfter, item.validBefore, item.nonce
        );
        bytes memory byKey = bytes.concat(SETTLE_BY_KEY, head, abi.encode(v, r, s));
        bytes memory byWallet = bytes.concat(
            SETTLE, head, abi.encode(uint256(0xe0), uint256(65)), item.signature, new bytes(31)
        );
        expectCalldata(item, byKey, PLAIN);
        vm.etch(PAYER, address(new Wallet()).code);
        expectCalldata(item, byWallet, CONTRACT);
        vm.etch(PAYER, "");
        item.factory = address(0xDEAD);
        expectCalldata(item, byWallet, DEPLOY);
    }

    function test_without_a_reason_nothing_is_tried() public {
        VerificationLens.Payment memory item = payment(address(0xDEAD));
        VerificationLens.Facts memory fact = lookAt(item);
        require(fact.isSeen && !fact.assetHasCode && !fact.wasTried, "no asset");
        require(fact.authorizationState == 0 && !fact.hasBalance, "answers");
        item = payment(address(token));
        item.isSignedByKey = false;
        fact = lookAt(item);
        require(fact.isSeen && fact.assetHasCode && !fact.wasTried, "no signer");
    }

    function test_only_strict_answers_count() public {
        bytes[5] memory states = [bytes(""), new bytes(31), abi.encode(0), abi.encode(1), abi.encode(2)];
        uint8[5] memory expected = [0, 0, 1, 2, 0];
        for (uint256 i = 0; i < states.length; ++i) {
            actor.tell(STATE, Actor.Way.Answer, states[i]);
            actor.tell(BALANCE, Actor.Way.Answer, states[i]);
            VerificationLens.Facts memory fact = lookAt(payment(address(actor)));
            require(fact.authorizationState == expected[i], "state");
            require(fact.hasBalance == (states[i].length == 32), "balance");
        }
        actor.tell(STATE, Actor.Way.Refuse, abi.encode(1));
        require(lookAt(payment(address(actor))).authorizationState == 0, "refused");
    }

    function test_what_burns_or_floods_costs_its_caps_and_no_more() public {
        address[3] memory hostile = [address(new GasBurner()), address(new Flood(true)), address(new Flood(false))];
        for (uint256 i = 0; i < hostile.length; ++i) {
            vm.etch(PAYER, "");
            VerificationLens.Payment memory item = payment(hostile[i]);
            expectAtMost(item, PLAIN + 2 * READ);
            vm.etch(PAYER, hostile[i].code);
            expectAtMost(item, 2 * CONTRACT + 2 * READ);
            item.payer = address(0xF00);
            item.factory = hostile[i];
            expectAtMost(item, DEPLOY + 2 * READ);
        }
    }

    function test_a_burned_cap_is_the_gas_that_was_used() public {
        VerificationLens.Facts memory fact = lookAt(payment(address(new GasBurner())));
        require(!fact.succeeds && fact.gasUsed == PLAIN && fact.revertData.length == 0, "burner");
    }

    function test_the_revert_is_told_up_to_a_limit() public {
        uint256[4] memory sizes = [uint256(0), 255, 256, 257];
        for (uint256 i = 0; i < sizes.length; ++i) {
            bytes memory data = new bytes(sizes[i]);
            for (uint256 at = 0; at < sizes[i]; ++at) data[at] = bytes1(uint8(at + 1));
            actor.tell(SETTLE_BY_KEY, Actor.Way.Refuse, data);
            VerificationLens.Payment memory item = payment(address(actor));
            item.signature = new bytes(65);
            VerificationLens.Facts memory fact = lookAt(item);
            require(!fact.succeeds && fact.wasTried, "outcome");
            if (sizes[i] > 256) {
                assembly {
                    mstore(data, 256)
                }
            }
            require(keccak256(fact.revertData) == keccak256(data), "data");
        }
    }

    function test_a_wallet_is_asked_only_if_the_settlement_fails() public {
        vm.etch(PAYER, address(new Wallet()).code);
        VerificationLens.Facts memory fact = lookAt(payment(address(echo)));
        require(!fact.succeeds && fact.signatureAccepted && fact.payerCodeSize != 0, "accepted");
        fact = lookAt(payment(address(token)));
        require(fact.succeeds && !fact.signatureAccepted, "not asked");
    }

    function test_only_the_magic_accepts() public {
        vm.etch(PAYER, address(actor).code);
        Actor wallet = Actor(PAYER);
        bytes[5] memory answers = [
            abi.encode(MAGIC), abi.encodePacked(MAGIC), abi.encode(uint256(uint32(MAGIC))), new bytes(0), abi.encode(1)
        ];
        for (uint256 i = 0; i < answers.length; ++i) {
            wallet.tell(MAGIC, Actor.Way.Answer, answers[i]);
            require(lookAt(payment(address(echo))).signatureAccepted == (i == 0), "answer");
        }
        wallet.tell(MAGIC, Actor.Way.Refuse, answers[0]);
        require(!lookAt(payment(address(echo))).signatureAccepted, "refused");
    }

    function test_a_payer_is_deployed_for_the_time_of_the_call() public {
        VerificationLens.Payment memory item = payment(address(token));
        item.payer = factory.place();
        item.factory = address(factory);
        item.factoryData = abi.encodeCall(Factory.deploy, ());
        item.isSignedByKey = false;
        token.mint(item.payer, 500);
        VerificationLens.Facts[] memory facts = look(twice(item));
        for (uint256 i = 0; i < 2; ++i) {
            require(facts[i].succeeds && facts[i].isDeployed && facts[i].payerCodeSize == 0, "deployed");
            require(facts[i].gasUsed > 80_000 && facts[i].gasUsed < DEPLOY, "gas");
        }
        require(item.payer.code.length == 0, "kept");

        item.asset = address(echo);
        require(lookAt(item).signatureAccepted, "asked while deployed");
        item.factoryData = "";
        VerificationLens.Facts memory fact = lookAt(item);
        require(fact.wasTried && !fact.isDeployed && !fact.signatureAccepted, "not deployed");
    }

    function test_nobody_else_tells_facts() public {
        VerificationLens.Payment memory honest = payment(address(token));
        bytes memory fake = abi.encodeCall(lens.rehearse, (honest, limits(), 0));
        Liar liar = new Liar(fake);
        VerificationLens.Payment memory item = payment(address(liar));
        item.signature = new bytes(65);
        VerificationLens.Limits memory wide = VerificationLens.Limits(1_000_000, 1_000_000, 1_000_000);
        VerificationLens.Payment[] memory items = twice(item);
        items[1].factory = address(lens);
        items[1].factoryData = fake;
        VerificationLens.Facts[] memory facts = lens.look(items, wide).facts;
        for (uint256 i = 0; i < 2; ++i) {
            require(facts[i].isSeen && facts[i].wasTried && !facts[i].succeeds, "believed");
            require(facts[i].authorizationState == 0 && !facts[i].hasBalance, "reads");
            // It is what the lens told the liar, and only that.
            require(facts[i].revertData.length == 256, "data");
        }
        item.asset = address(lens);
        require(!lookAt(item).succeeds, "the lens is no token");
    }

    function test_with_any_gas_what_is_seen_is_what_it_is() public {
        VerificationLens.Payment[] memory items = new VerificationLens.Payment[](6);
        for (uint256 i = 0; i < items.length; ++i) items[i] = payment(address(token));
        items[1].asset = address(new GasBurner());
        items[2].asset = address(echo);
        items[3].payer = address(new GasBurner());
        items[4].payer = factory.place();
        items[4].factory = address(factory);
        items[4].factoryData = abi.encodeCall(Factory.deploy, ());
        sweep(items, limits(), 0, 3_500_000, 9_973);
    }

    function test_with_any_gas_a_large_cap_is_given_in_full() public {
        uint256 cap = 32_000_000;
        VerificationLens.Payment[] memory items = twice(payment(address(new Demanding(cap))));
        sweep(items, VerificationLens.Limits(cap, cap, cap), cap, cap + cap / 16, 9_973);
    }

    function test_with_any_gas_a_wallet_is_asked_with_all_of_its_cap() public {
        VerificationLens.Payment[] memory items = twice(payment(address(new GasBurner())));
        items[0].payer = items[1].payer = address(new Demanding(CONTRACT));
        require(look(items)[0].signatureAccepted, "accepted");
        sweep(items, limits(), 0, 1_600_000, 4_999);
    }

    function test_with_any_gas_a_token_is_asked_with_all_of_its_cap() public {
        VerificationLens.Payment[] memory items = twice(payment(address(new Demanding(READ))));
        items[0].isSignedByKey = items[1].isSignedByKey = false;
        require(look(items)[0].authorizationState == 2 && look(items)[0].hasBalance, "answers");
        sweep(items, limits(), 0, 400_000, 997);
    }

    function test_with_any_gas_a_burned_settlement_leaves_enough_to_report_many() public {
        sweep(manyBehind(payment(address(new GasBurner()))), limits(), 0, 2_400_000, 9_973);
    }

    function test_with_any_gas_burned_questions_leave_enough_to_report_many() public {
        VerificationLens.Payment memory item = payment(address(new GasBurner()));
        item.isSignedByKey = false;
        sweep(manyBehind(item), limits(), 0, 2_400_000, 9_973);
    }

    function test_a_limit_that_no_gas_can_cover_leaves_it_unseen() public {
        uint256 max = type(uint256).max;
        VerificationLens.Payment[] memory items = twice(payment(address(token)));
        VerificationLens.Facts[] memory facts = lens.look(items, VerificationLens.Limits(max, max, max)).facts;
        require(!facts[0].isSeen && !facts[1].isSeen, "seen");
    }

    function test_by_creation_the_answer_is_the_same() public {
        VerificationLens.Payment[] memory items = twice(payment(address(token)));
        LensByCreation answer = new LensByCreation(items, limits());
        require(keccak256(address(answer).code) == keccak256(abi.encode(lens.look(items, limits()))), "answer");
    }

    /// @dev With each amount of gas: what is seen is what it is with plenty, the rest is empty; more gas shows more, and
    /// never nothing at all.
    function sweep(
        VerificationLens.Payment[] memory items,
        VerificationLens.Limits memory limits_,
        uint256 gasMin,
        uint256 gasMax,
        uint256 step
    ) private {
        bytes memory data = abi.encodeCall(lens.look, (items, limits_));
        bytes32[] memory expected = hashes(lens.look(items, limits_).facts);
        bool answered;
        bool sawPart;
        uint256 nMost;
        for (uint256 gas = gasMin; gas < gasMax; gas += step) {
            (bool done, uint256 nSeen) = this.lookWith(gas, data, expected);
            require(done || !answered, "less gas was enough to answer");
            require(nSeen >= nMost, "less gas showed more");
            answered = done;
            sawPart = sawPart || (nSeen > 0 && nSeen < items.length);
            nMost = nSeen;
        }
        require(sawPart && nMost == items.length, "the sweep never saw a part, or never all");
    }

    /// @dev In a frame of its own, or a sweep would pay for the memory of all its steps.
    function lookWith(uint256 gas, bytes calldata data, bytes32[] calldata expected)
        external
        returns (bool done, uint256 nSeen)
    {
        vm.cool(address(lens));
        bytes memory answer;
        (done, answer) = address(lens).call{gas: gas}(data);
        if (!done) return (false, 0);
        VerificationLens.Facts[] memory facts = abi.decode(answer, (VerificationLens.Sight)).facts;
        require(facts.length == expected.length, "facts");
        while (nSeen < facts.length && facts[nSeen].isSeen) ++nSeen;
        bytes32[] memory found = hashes(facts);
        bytes32 unseen = hashes(new VerificationLens.Facts[](1))[0];
        for (uint256 i = 0; i < facts.length; ++i) {
            require(found[i] == (i < nSeen ? expected[i] : unseen), "other facts with less gas");
        }
    }

    function hashes(VerificationLens.Facts[] memory facts) private pure returns (bytes32[] memory found) {
        found = new bytes32[](facts.length);
        for (uint256 i = 0; i < facts.length; ++i) found[i] = keccak256(abi.encode(facts[i]));
    }

    function expectCalldata(VerificationLens.Payment memory item, bytes memory data, uint256 cap) private {
        VerificationLens.Facts memory fact = lookAt(item);
        (uint256 left, bytes32 hash, uint256 size) = abi.decode(fact.revertData, (uint256, bytes32, uint256));
        require(size == data.length && hash == keccak256(data), "calldata");
        require(left <= cap && left + ENTRY_GAS >= cap, "cap");
    }

    function expectAtMost(VerificationLens.Payment memory item, uint256 gasMax) private {
        VerificationLens.Payment[] memory items = new VerificationLens.Payment[](3);
        (items[0], items[1], items[2]) = (payment(address(token)), item, payment(address(token)));
        items[0].payer = items[2].payer = address(0xCAFE);
        uint256 before = gasleft();
        VerificationLens.Facts[] memory facts = look(items);
        uint256 used = before - gasleft();
        require(facts[0].isSeen && facts[1].isSeen && facts[2].isSeen, "unseen");
        // Two honest payments, and what surrounds each of the three.
        require(used < gasMax + 2 * PLAIN + 3 * 40_000, "gas");
    }

    function lookAt(VerificationLens.Payment memory item) private returns (VerificationLens.Facts memory) {
        VerificationLens.Payment[] memory items = new VerificationLens.Payment[](1);
        items[0] = item;
        return look(items)[0];
    }

    function look(VerificationLens.Payment[] memory items) private returns (VerificationLens.Facts[] memory) {
        return lens.look(items, limits()).facts;
    }

    function limits() private pure returns (VerificationLens.Limits memory) {
        return VerificationLens.Limits(PLAIN, CONTRACT, DEPLOY);
    }

    function manyBehind(VerificationLens.Payment memory item)
        private
        pure
        returns (VerificationLens.Payment[] memory items)
    {
        items = new VerificationLens.Payment[](60);
        items[0] = item;
        for (uint256 i = 1; i < items.length; ++i) items[i] = payment(address(0xDEAD));
    }

    function twice(VerificationLens.Payment memory item) private pure returns (VerificationLens.Payment[] memory items) {
        items = new VerificationLens.Payment[](2);
        items[0] = item;
        items[1] = abi.decode(abi.encode(item), (VerificationLens.Payment));
    }

    function payment(address asset) private pure returns (VerificationLens.Payment memory item) {
        (item.asset, item.payer, item.payee, item.amount) = (asset, PAYER, PAYEE, 7);
        (item.validAfter, item.validBefore, item.nonce) = (1, type(uint256).max, keccak256("nonce"));
        item.signature = new bytes(65);
        item.isSignedByKey = true;
    }
}
